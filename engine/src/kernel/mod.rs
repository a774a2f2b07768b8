//! The kernel side as the engine sees it: loading the programs, their maps, and where they attach.

pub mod attach;
pub mod btf;
#[cfg(any(test, feature = "fuzz"))]
pub mod exercise;
pub mod families;
pub mod findings;
pub mod image;
pub mod pids;
pub mod placing;
pub mod requirements;
pub mod select;
pub mod sites;
pub mod sockets;
#[cfg(test)]
mod stack;
pub mod study;
pub mod uprobes;
pub mod wanted;
pub mod watch;

use std::{
    fs::File,
    os::fd::{AsFd as _, OwnedFd},
};

use agentsight_abi::{
    Config, DropCause, Tally, Total,
    config::filter,
    pid::PidLayout,
    socket::{SocketLayout, traits},
};
use aya::{
    Ebpf, EbpfLoader,
    maps::{ArrayOfMaps, HashMap, Map, MapData, PerCpuArray},
    programs::{RawTracePoint, TracePoint},
};

use self::{
    families::Placement,
    requirements::Missing,
    select::Selection,
    uprobes::{Link, Uprobes},
};
use crate::{
    ring::Ring,
    sys::{perf_event, rcu::Expedited, tracefs::Tracepoint},
};

/// The programs, compiled for this architecture.
#[cfg(target_arch = "x86_64")]
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/../ebpf/prebuilt/x86_64.o"));
/// The programs, compiled for this architecture.
#[cfg(target_arch = "aarch64")]
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/../ebpf/prebuilt/aarch64.o"));

/// The kind number of a ring buffer map, `enum bpf_map_type` in linux/bpf.h.
const BPF_MAP_TYPE_RINGBUF: u32 = 27;

/// Why the kernel side can't be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something that the machine or the user lacks.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// The kernel refused the programs or a map.
    #[error("the kernel refused the capture programs: {0}")]
    Load(#[from] aya::EbpfError),
    /// A program didn't pass the verifier, or can't be attached.
    #[error("the kernel refused a capture program: {0}")]
    Program(#[from] aya::programs::ProgramError),
    /// A program for functions didn't pass the verifier.
    #[error("the kernel refused the capture program `{program}`: {source}\n{log}")]
    Verifier {
        /// The program.
        program: String,
        /// What bpf(2) says.
        source: std::io::Error,
        /// What the verifier says.
        log: String,
    },
    /// A program can't be put on a function.
    #[error("`{program}` at offset {offset:#x} of the file: {source}")]
    Place {
        /// The program.
        program: &'static str,
        /// Offset in the file.
        offset: u64,
        /// What bpf(2) says.
        source: std::io::Error,
    },
    /// A map can't be made or used.
    #[error("a map of the capture programs: {0}")]
    Map(#[from] aya::maps::MapError),
    /// A ring can't be mapped.
    #[error("mapping a ring of {bytes} bytes: {source}")]
    Ring {
        /// Size asked for.
        bytes: usize,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// Children can't be followed.
    #[error("following child processes needs the sched_process_fork tracepoint: {0}")]
    Fork(std::io::Error),
    /// A container can't be chosen.
    #[error("{0}")]
    Cgroup(std::io::Error),
    /// Process events can't be had.
    #[error("watching for new processes (perf_event_open): {0}")]
    Watch(std::io::Error),
    /// The embedded object doesn't have what it should.
    #[error("the embedded capture programs have no `{0}`")]
    Object(&'static str),
}

/// The loaded programs and their maps.
pub struct Kernel {
    ebpf: Ebpf,
    uprobes: Uprobes,
    /// Runs the fork program as long as it is open.
    _fork: Option<OwnedFd>,
    /// The inner maps, which the kernel keeps, and which are mapped by the rings.
    ring_maps: Vec<MapData>,
    ring_bytes: usize,
    expedites: bool,
}

impl Kernel {
    /// Loads everything; nothing is attached to a library or to sockets yet. `layout` is that of this
    /// kernel, or all zero when sockets are not to be looked at; `pids` says how processes are numbered;
    /// `expedites` lets grace periods of RCU end at once while a file gets its probes.
    ///
    /// # Errors
    /// What is missing, by name and with the remedy, or what the kernel refused.
    pub fn load(
        selection: &Selection,
        ring_bytes: usize,
        follow_children: bool,
        layout: &SocketLayout,
        pids: &PidLayout,
        expedites: bool,
    ) -> Result<Self, Error> {
        requirements::check()?;
        let in_first_namespace = pids.namespace == 0;
        let fork = (follow_children && in_first_namespace)
            .then(|| Tracepoint::find("sched", "sched_process_fork"))
            .transpose()
            .map_err(Error::Fork)?;
        let mut config = Config {
            engine_tgid: std::process::id(),
            filters: selection.filters(),
            unwanted: selection.unwanted_sides,
            ..Config::default()
        };
        if follow_children {
            config.filters |= filter::FOLLOW;
        }
        if let Some(fork) = &fork {
            config.fork_child_pid_offset =
                fork.offset("child_pid").ok_or_else(|| Error::Fork(std::io::ErrorKind::NotFound.into()))?;
        }
        let (layout_words, pid_words) = (sockets::words(layout), pids::words(pids));
        let words = [config.engine_tgid, config.filters, config.fork_child_pid_offset, config.unwanted];
        let cpus = cpu_count();
        let mut ebpf = EbpfLoader::new()
            .override_global("CONFIG", &words, true)
            .override_global("LAYOUT", &layout_words, true)
            .override_global("PIDS", &pid_words, true)
            .map_max_entries("RINGS", cpus)
            .load(OBJECT)?;
        let ring_maps = make_rings(&mut ebpf, cpus, ring_bytes)?;
        let uprobes = Uprobes::load(&mut ebpf, OBJECT)?;
        let fork = fork.map(|fork| attach_fork(&mut ebpf, &fork)).transpose()?;
        if follow_children && !in_first_namespace {
            attach_fork_inside(&mut ebpf)?;
        }
        let mut kernel = Self { ebpf, uprobes, _fork: fork, ring_maps, ring_bytes, expedites };
        kernel.select(selection)?;
        Ok(kernel)
    }

    /// Maps every ring for reading, in the order of the CPUs.
    ///
    /// # Errors
    /// What mmap(2) says.
    pub fn rings(&self) -> Result<Vec<Ring>, Error> {
        self.ring_maps
            .iter()
            .map(|map| {
                Ring::new(map.fd().as_fd(), self.ring_bytes)
                    .map_err(|source| Error::Ring { bytes: self.ring_bytes, source })
            })
            .collect()
    }

    /// Descriptors of the rings, in the order of the CPUs, for waiting.
    pub fn ring_fds(&self) -> impl Iterator<Item = std::os::fd::BorrowedFd<'_>> {
        self.ring_maps.iter().map(|map| map.fd().as_fd())
    }

    /// Begins to look at plain sockets.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn attach_sockets(&mut self) -> Result<(), Error> {
        sockets::attach(&mut self.ebpf)
    }

    /// Looks at plain sockets no more.
    pub fn detach_sockets(&mut self) {
        sockets::detach(&mut self.ebpf);
    }

    /// Puts programs on functions of a file.
    ///
    /// # Errors
    /// What the kernel refused; then none is on it.
    pub fn attach(&mut self, file: &File, placements: &[Placement]) -> Result<Vec<Link>, Error> {
        let _expedited = self.expedites.then(Expedited::begin);
        self.uprobes.attach(&mut self.ebpf, file, placements)
    }

    /// Adds a cgroup, by its path in the v2 hierarchy, to those that are chosen.
    ///
    /// # Errors
    /// When the filter is full, or the hierarchy isn't mounted where it is looked for.
    pub fn choose_cgroup(&mut self, path: &str) -> Result<(), Error> {
        let id = select::cgroup_id_at(path).map_err(Error::Cgroup)?;
        let map = self.ebpf.map_mut("FILTER_CGROUPS").ok_or(Error::Object("FILTER_CGROUPS"))?;
        Ok(HashMap::<_, u64, u32>::try_from(map)?.insert(id, 1, 0)?)
    }

    /// Adds a process to those that are chosen by pid.
    ///
    /// # Errors
    /// When the filter is full.
    pub fn choose_process(&mut self, pid: u32) -> Result<(), Error> {
        let map = self.ebpf.map_mut("FILTER_TGIDS").ok_or(Error::Object("FILTER_TGIDS"))?;
        Ok(HashMap::<_, u32, u32>::try_from(map)?.insert(pid, 1, 0)?)
    }

    /// Takes a process, or a thread that was taken for one, off those that are chosen by pid.
    pub fn unchoose(&mut self, id: u32) {
        let map = self.ebpf.map_mut("FILTER_TGIDS");
        if let Some(Ok(mut chosen)) = map.map(HashMap::<_, u32, u32>::try_from) {
            // Most ids were never chosen.
            let _ = chosen.remove(&id);
        }
    }

    fn select(&mut self, selection: &Selection) -> Result<(), Error> {
        for &pid in &selection.pids {
            self.choose_process(pid)?;
        }
        let map = self.ebpf.map_mut("FILTER_UIDS").ok_or(Error::Object("FILTER_UIDS"))?;
        let mut uids = HashMap::<_, u32, u32>::try_from(map)?;
        for &uid in &selection.uids {
            uids.insert(uid, 1, 0)?;
        }
        let map = self.ebpf.map_mut("FILTER_CGROUPS").ok_or(Error::Object("FILTER_CGROUPS"))?;
        let mut cgroups = HashMap::<_, u64, u32>::try_from(map)?;
        for &id in &selection.cgroups {
            cgroups.insert(id, 1, 0)?;
        }
        let map = self.ebpf.map_mut("FILTER_COMMS").ok_or(Error::Object("FILTER_COMMS"))?;
        let mut comms = HashMap::<_, [u8; 16], u32>::try_from(map)?;
        for comm in &selection.comms {
            comms.insert(select::comm_key(comm), 1, 0)?;
        }
        Ok(())
    }

    /// The map by which workers tell the programs that a connection is of no use.
    ///
    /// # Errors
    /// When it was taken already.
    pub fn take_verdicts(&mut self) -> Result<Verdicts, Error> {
        let map = self.ebpf.take_map("VERDICTS").ok_or(Error::Object("VERDICTS"))?;
        Ok(Verdicts(HashMap::try_from(map)?))
    }

    /// Forgets the connections of processes that ended without freeing them. Says how many.
    ///
    /// # Errors
    /// When the map can't be walked.
    pub fn forget_processes(&mut self, pids: &[u32]) -> Result<u64, Error> {
        let map = self.ebpf.map_mut("CONNS").ok_or(Error::Object("CONNS"))?;
        let mut conns = HashMap::<_, [u64; 2], [u64; 8]>::try_from(map)?;
        // The key begins with the process id, in the byte order of this machine, and then zeros.
        let ended = |key: &[u64; 2]| u32::try_from(key[0]).is_ok_and(|pid| pids.contains(&pid));
        let keys: Vec<_> = conns.keys().flatten().filter(ended).collect();
        Ok(keys.iter().filter(|key| conns.remove(key).is_ok()).count() as u64)
    }

    /// Connections that the kernel remembers now.
    ///
    /// # Errors
    /// When the map can't be walked.
    pub fn connections(&self) -> Result<u64, Error> {
        let map = self.ebpf.map("CONNS").ok_or(Error::Object("CONNS"))?;
        let conns = HashMap::<_, [u64; 2], [u64; 8]>::try_from(map)?;
        let map = self.ebpf.map("SOCKETS").ok_or(Error::Object("SOCKETS"))?;
        let sockets = HashMap::<_, u64, [u64; 10]>::try_from(map)?;
        // Of sockets those that were captured; the traits are the last word's lower half.
        let captured = sockets.iter().flatten().filter(|(_, socket)| socket[9] & u64::from(traits::COUNTED) != 0);
        Ok((conns.keys().flatten().count() + captured.count()) as u64)
    }

    /// What the kernel side has counted, summed over the CPUs.
    ///
    /// # Errors
    /// When the counters can't be read.
    pub fn tallies(&self) -> Result<Tallies, Error> {
        let map = self.ebpf.map("TALLY").ok_or(Error::Object("TALLY"))?;
        let array = PerCpuArray::<_, [u64; 2]>::try_from(map)?;
        let read = |index: u32| -> Result<Tally, Error> {
            let mut sum = Tally::default();
            for slot in array.get(&index, 0)?.iter() {
                sum.events += slot[0];
                sum.bytes += slot[1];
            }
            Ok(sum)
        };
        Ok(Tallies {
            drops: DropCause::ALL.iter().map(|cause| read(cause.index())).collect::<Result<_, _>>()?,
            totals: Total::ALL.iter().map(|total| read(total.index())).collect::<Result<_, _>>()?,
        })
    }
}

/// The kernel side's counters at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tallies {
    drops: Vec<Tally>,
    totals: Vec<Tally>,
}

impl Tallies {
    /// What was dropped for `cause`.
    pub fn dropped(&self, cause: DropCause) -> Tally {
        self.drops.get(cause as usize).copied().unwrap_or_default()
    }

    /// What was done.
    pub fn total(&self, total: Total) -> Tally {
        self.totals.get(total as usize).copied().unwrap_or_default()
    }
}

/// Tells the programs which connections to ignore.
pub struct Verdicts(HashMap<MapData, u64, u32>);

impl Verdicts {
    /// Makes the kernel copy nothing more of connection `conn`. Best effort: when the map refuses,
    /// its bytes go on being read and skipped.
    pub fn ignore(&mut self, conn: u64) {
        let _ = self.0.insert(conn, agentsight_abi::verdict::IGNORE, 0);
    }
}

/// The name of a compiled program, if there is one called `name`.
fn program_name(name: &str) -> Option<&'static str> {
    let at = memchr::memmem::find(OBJECT, &[b"\0", name.as_bytes(), b"\0"].concat())? + 1;
    std::str::from_utf8(&OBJECT[at..at + name.len()]).ok().filter(|name| !name.is_empty())
}

fn make_rings(ebpf: &mut Ebpf, cpus: u32, bytes: usize) -> Result<Vec<MapData>, Error> {
    let map: &mut Map = ebpf.map_mut("RINGS").ok_or(Error::Object("RINGS"))?;
    let mut rings: ArrayOfMaps<_, MapData> = ArrayOfMaps::try_from(map)?;
    let size =
        u32::try_from(bytes).map_err(|_| Error::Ring { bytes, source: std::io::ErrorKind::InvalidInput.into() })?;
    (0..cpus)
        .map(|cpu| {
            let ring = MapData::create(
                aya_obj::Map::new_from_params(BPF_MAP_TYPE_RINGBUF, 0, 0, size, 0),
                "agentsight_ring",
                None,
            )?;
            rings.set(cpu, &ring, 0)?;
            Ok(ring)
        })
        .collect()
}

fn attach_fork(ebpf: &mut Ebpf, fork: &Tracepoint) -> Result<OwnedFd, Error> {
    let program = ebpf.program_mut("process_fork").ok_or(Error::Object("process_fork"))?;
    let program: &mut TracePoint = program.try_into()?;
    program.load()?;
    perf_event::attach_tracepoint(fork.id, program.fd()?.as_fd()).map_err(Error::Fork)
}

/// The program stays attached until the object is dropped.
fn attach_fork_inside(ebpf: &mut Ebpf) -> Result<(), Error> {
    let program = ebpf.program_mut("process_fork_inside").ok_or(Error::Object("process_fork_inside"))?;
    let program: &mut RawTracePoint = program.try_into()?;
    program.load()?;
    program.attach("sched_process_fork")?;
    Ok(())
}

/// CPUs that this machine may ever have online.
pub fn cpu_count() -> u32 {
    aya::util::nr_cpus().map_or(1, |cpus| u32::try_from(cpus).unwrap_or(1))
}
