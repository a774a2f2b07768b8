//! The programs for functions: loading them, putting them on files and taking them off again.
//!
//! From Linux 6.6 on, a program is put on all of its places in a file by one link (`uprobe_multi`). Such
//! links can be closed by several threads at once, which is worth a lot: for each, the kernel waits a
//! tenth of a second until no CPU can be running the program any more, and waits at the same time are
//! one wait. Before 6.6 each place is a perf event of its own, and they are closed one after the other
//! whoever asks.

use std::{
    collections::HashMap,
    ffi::CString,
    fs::File,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd},
    sync::{Mutex, PoisonError},
    thread,
};

use aya::{
    Ebpf,
    maps::{Map, MapData},
    programs::{
        Program, UProbe,
        uprobe::{UProbeLink, UProbeScope},
    },
};
use aya_obj::{Object, ProgramSection};

use super::{Error, families::Placement};
use crate::sys::bpf;

/// Threads that the verifier runs on; what it takes is bounded by the largest program.
const LOADING_THREADS: usize = 2;

/// Threads that take probes off.
const DETACHING_THREADS: usize = 128;

/// Programs that are loaded, and how they are put on files.
pub enum Uprobes {
    /// All places of a program in a file by one link.
    Together(HashMap<String, Loaded>),
    /// A perf event for each place; the programs are those of aya's object.
    OneByOne,
}

/// A program for many places.
pub struct Loaded {
    program: OwnedFd,
    /// It runs when the function returns.
    on_return: bool,
}

/// Keeps a program on places of a file until it is dropped.
pub enum Link {
    /// On many places.
    Together(OwnedFd),
    /// On one.
    One(UProbeLink),
}

impl Uprobes {
    /// Loads all that families can place, so that placing never waits for the verifier. `object` is what
    /// `ebpf` was loaded from.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn load(ebpf: &mut Ebpf, object: &[u8]) -> Result<Self, Error> {
        if bpf::can_link() {
            return Ok(Self::Together(load_together(ebpf, object)?));
        }
        for (_, program) in ebpf.programs_mut() {
            if let Program::UProbe(program) = program {
                program.load()?;
            }
        }
        Ok(Self::OneByOne)
    }

    /// Puts programs on `file`: those for returns before the others, and otherwise in the order in which
    /// they first come.
    ///
    /// # Errors
    /// What the kernel refused; then none is on it.
    pub fn attach(&self, ebpf: &mut Ebpf, file: &File, placements: &[Placement]) -> Result<Vec<Link>, Error> {
        // The descriptor names the very file that was looked at, whatever its path leads to now.
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let mut links = Vec::new();
        let done = match self {
            Self::Together(programs) => attach_together(programs, &path, placements, &mut links),
            Self::OneByOne => attach_one_by_one(ebpf, &path, placements, &mut links),
        };
        match done {
            Ok(()) => Ok(links),
            Err(error) => {
                detach(links);
                Err(error)
            }
        }
    }
}

/// Takes probes off, several at once.
pub fn detach(links: Vec<Link>) {
    // Perf events are closed one after the other whoever closes them.
    let threads = links.iter().filter(|link| matches!(link, Link::Together(_))).count();
    each(links, threads.min(DETACHING_THREADS), drop);
}

/// The same on a thread beside, so that nobody waits for the kernel.
pub fn detach_beside(links: Vec<Link>) {
    if !links.is_empty() {
        // Without a thread they are dropped here, one after the other.
        let _ = thread::Builder::new().name("agentsight-off".to_owned()).spawn(|| detach(links));
    }
}

/// Hands every item to `work`, on some threads at once.
fn each<T: Send>(items: Vec<T>, threads: usize, work: impl Fn(T) + Sync) {
    let items = Mutex::new(items.into_iter());
    let next = || items.lock().unwrap_or_else(PoisonError::into_inner).next();
    let run = || {
        while let Some(item) = next() {
            work(item);
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            // Without this thread the others do its part.
            let _ = thread::Builder::new().spawn_scoped(scope, run);
        }
        run();
    });
}

/// aya's programs are for perf events, and a program says when it is loaded what it is for. So the same
/// object is read once more, for the maps that aya has made.
fn load_together(ebpf: &Ebpf, object: &[u8]) -> Result<HashMap<String, Loaded>, Error> {
    let mut object = Object::parse(object).map_err(aya::EbpfError::from)?;
    let described = std::mem::take(&mut object.maps);
    let maps = described.iter().filter_map(|(name, map)| Some((name.as_str(), descriptor(ebpf.map(name)?)?, map)));
    let text = object.functions.keys().map(|(section, _)| *section).collect();
    object.relocate_maps(maps, &text).map_err(aya::EbpfError::from)?;
    object.relocate_calls(&text).map_err(aya::EbpfError::from)?;

    let mut sources: Vec<_> = object
        .programs
        .iter()
        .filter_map(|(name, program)| {
            let on_return = match program.section {
                ProgramSection::UProbe { .. } => false,
                ProgramSection::URetProbe { .. } => true,
                _ => return None,
            };
            let instructions = object.functions.get(&program.function_key())?.instructions.as_slice();
            Some((bpf::Source { name, instructions, license: &program.license }, on_return))
        })
        .collect();
    // The largest first, so that the threads end at about the same time.
    sources.sort_by_key(|(source, _)| std::cmp::Reverse(source.instructions.len()));
    let loaded = Mutex::new(Ok(HashMap::new()));
    each(sources, LOADING_THREADS, |(source, on_return)| {
        let program = bpf::load(source);
        let mut loaded = loaded.lock().unwrap_or_else(PoisonError::into_inner);
        match (program, loaded.as_mut()) {
            (Ok(program), Ok(loaded)) => {
                loaded.insert(source.name.to_owned(), Loaded { program, on_return });
            }
            (Err((error, log)), Ok(_)) => {
                *loaded = Err(Error::Verifier { program: source.name.to_owned(), source: error, log });
            }
            (_, Err(_)) => {}
        }
    });
    loaded.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// The descriptor of a map of a kind that the programs have.
fn descriptor(map: &Map) -> Option<RawFd> {
    let data: &MapData = match map {
        Map::Array(data) | Map::ArrayOfMaps(data) | Map::PerCpuArray(data) => data,
        Map::HashMap(data) | Map::LruHashMap(data) => data,
        _ => return None,
    };
    Some(data.fd().as_fd().as_raw_fd())
}

fn attach_together(
    programs: &HashMap<String, Loaded>,
    path: &str,
    placements: &[Placement],
    links: &mut Vec<Link>,
) -> Result<(), Error> {
    let mut groups: Vec<(&'static str, &Loaded, Vec<u64>)> = Vec::new();
    for &Placement { program, offset } in placements {
        match groups.iter_mut().find(|(name, ..)| *name == program) {
            Some((_, _, offsets)) => offsets.push(offset),
            None => {
                let loaded = programs.get(program).ok_or(Error::Object("a program for a probed function"))?;
                groups.push((program, loaded, vec![offset]));
            }
        }
    }
    // A program that is at several functions comes where the first of them has it, and then the return of
    // a later one might come after its entry.
    groups.sort_by_key(|(_, loaded, _)| !loaded.on_return);
    let path = CString::new(path).unwrap_or_default();
    for (program, Loaded { program: fd, on_return }, offsets) in groups {
        let link = |offsets: &[u64]| bpf::link(fd.as_fd(), &path, offsets, *on_return).map(Link::Together);
        match link(&offsets) {
            Ok(all) => links.push(all),
            // The kernel doesn't say which place it is, so each is tried alone.
            Err(_) => {
                for offset in offsets {
                    links.push(link(&[offset]).map_err(|source| Error::Place { program, offset, source })?);
                }
            }
        }
    }
    Ok(())
}

fn attach_one_by_one(
    ebpf: &mut Ebpf,
    path: &str,
    placements: &[Placement],
    links: &mut Vec<Link>,
) -> Result<(), Error> {
    for placement in placements {
        let program = ebpf.program_mut(placement.program).ok_or(Error::Object("a program for a probed function"))?;
        let program: &mut UProbe = program.try_into()?;
        let id = program.attach(placement.offset, path, UProbeScope::AllProcesses)?;
        links.push(Link::One(program.take_link(id)?));
    }
    Ok(())
}
