//! How soon a library has its probes after a process has mapped it for the first time.
//!
//! Nobody is asked: a uprobe is a breakpoint in the code, and this process looks at the code of the
//! library that it has loaded until the breakpoint is there.
//!
//! The floor beside it: what the kernel takes for one empty probe on such a library, after the same pause.
//! The first registration after a while waits for an RCU grace period (`dup_mmap_sem` of
//! kernel/events/uprobes.c is a per-CPU semaphore, whose writers do), and the following ones don't.

use std::{
    ffi::CString,
    fs::{self, File},
    io::{BufRead as _, BufReader},
    os::{fd::AsFd as _, unix::ffi::OsStrExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use agentsight::{
    demo::Folder,
    kernel::{
        image::examine,
        uprobes::{Link, detach},
    },
    sys::bpf,
};
use anyhow::{Context as _, bail, ensure};
use clap::Args;
use libloading::{Library, Symbol};

use crate::probes;

/// A probe that takes longer is counted as missing.
const ATTACH_DURATION_MAX: Duration = Duration::from_secs(5);
/// Between two looks: a process that spins would keep its CPU from the quiescent state that the kernel waits
/// for, so that the measurement would make what it measures longer.
const LOOK_PAUSE: Duration = Duration::from_micros(20);
/// So many in a row, and the rest won't come either.
const MISSING_MAX: usize = 3;

/// Flags of `discovery`.
#[derive(Args)]
pub struct Options {
    /// Copies of the library, each loaded once
    #[arg(long, default_value_t = 200)]
    copies: usize,
    /// Pause between two, so that each finds the engine idle
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 20)]
    pause: u64,
    /// The library
    #[arg(long, default_value = "/usr/lib/x86_64-linux-gnu/libssl.so.3")]
    library: PathBuf,
    /// The agentsight to measure [default: the one beside this program]
    #[arg(long)]
    agentsight: Option<PathBuf>,
}

/// Measures and prints.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let folder = Folder::create()?;
    let copies: Vec<PathBuf> = (0..options.copies)
        .map(|index| {
            let copy = folder.path().join(format!("libssl-{index}.so"));
            fs::copy(&options.library, &copy).with_context(|| format!("can't copy {}", options.library.display()))?;
            Ok(copy)
        })
        .collect::<anyhow::Result<_>>()?;
    // What it needs is there already, so that only the library itself is mapped below; and the byte that
    // a breakpoint will replace is known.
    let spare = folder.path().join("libssl.so");
    fs::copy(&options.library, &spare)?;
    let first = load(&spare)?;
    let original = start_of(code(&first)?);
    let mut engine = start(options)?;
    let empty = probes::program()?;
    let (mut micros, mut floor) = (Vec::with_capacity(copies.len()), Vec::with_capacity(copies.len()));
    let offset = examine(&File::open(&spare)?, |image| image.functions(&["SSL_free"]))?;
    let offset = offset.into_iter().flatten().next().context("the library has no SSL_free")?;
    let spare = CString::new(spare.as_os_str().as_bytes())?;
    let mut links = Vec::with_capacity(copies.len());
    let (mut missing, mut in_a_row) = (0, 0);
    for copy in &copies {
        match attached_after(copy, original)? {
            Some(after) => {
                micros.push(after.as_micros());
                in_a_row = 0;
            }
            None => (missing, in_a_row) = (missing + 1, in_a_row + 1),
        }
        if in_a_row == MISSING_MAX {
            eprintln!("{MISSING_MAX} libraries in a row got no probes: the rest is left out");
            break;
        }
        thread::sleep(Duration::from_millis(options.pause));
        let began = Instant::now();
        links.push(Link::Together(bpf::link(empty.as_fd(), &spare, &[offset], false)?));
        floor.push(began.elapsed().as_micros());
        thread::sleep(Duration::from_millis(options.pause));
    }
    detach(links);
    drop(first);
    let status = Command::new("kill").args(["-INT", &engine.id().to_string()]).status()?;
    ensure!(status.success(), "can't stop agentsight");
    engine.wait()?;
    println!("microseconds, {} copies, {missing} without probes:", copies.len());
    distribution("mapping -> attached", micros);
    distribution("one empty probe, by the kernel", floor);
    Ok(())
}

fn distribution(of: &str, mut micros: Vec<u128>) {
    micros.sort_unstable();
    let at = |share: f64| micros.get(((micros.len() as f64 - 1.0) * share).round() as usize).copied().unwrap_or(0);
    println!("  {of}");
    for (name, share) in [("min", 0.0), ("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0)] {
        println!("    {name} {}", at(share));
    }
}

#[expect(unsafe_code, reason = "a C library")]
fn load(path: &Path) -> anyhow::Result<Library> {
    // SAFETY: libssl has no surprising initialisers.
    Ok(unsafe { Library::new(path)? })
}

/// Where a loaded library's `SSL_free` begins: a function that is always probed itself, while an inner one
/// may stand in for `SSL_read` and `SSL_write`. The probes of a file go on within microseconds of each other.
#[expect(unsafe_code, reason = "looks for a C library's function")]
fn code(library: &Library) -> anyhow::Result<*const u8> {
    // SAFETY: a function, whose address is all that is used.
    let function: Symbol<'_, unsafe extern "C" fn()> = unsafe { library.get(b"SSL_free\0")? };
    Ok(*function as *const u8)
}

/// A function's first bytes, among which the probe is: not always at the very first, because some
/// instructions cost less to probe.
type Start = [u8; 32];

#[expect(unsafe_code, reason = "looks at a C library's code")]
fn start_of(code: *const u8) -> Start {
    // SAFETY: the function is longer, and stays mapped as long as the library is loaded. The kernel
    // replaces its page behind the compiler's back.
    unsafe { code.cast::<Start>().read_volatile() }
}

/// Loads a library that nobody has seen, and waits for the breakpoint among these bytes.
fn attached_after(path: &Path, original: Start) -> anyhow::Result<Option<Duration>> {
    let began = Instant::now();
    let library = load(path)?;
    let code = code(&library)?;
    while began.elapsed() < ATTACH_DURATION_MAX {
        if start_of(code) != original {
            return Ok(Some(began.elapsed()));
        }
        thread::sleep(LOOK_PAUSE);
    }
    Ok(None)
}

fn start(options: &Options) -> anyhow::Result<Child> {
    let beside = || std::env::current_exe().map(|path| path.with_file_name("agentsight"));
    let program = options.agentsight.clone().map_or_else(beside, Ok)?;
    let mut child = Command::new(&program)
        .args(["trace", "--json"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("can't start {}", program.display()))?;
    let mut lines = BufReader::new(child.stderr.take().context("no stderr")?).lines();
    if !lines.by_ref().map_while(Result::ok).any(|line| line.starts_with("agentsight: ready")) {
        bail!("agentsight doesn't capture here");
    }
    // What it says from here on is of no interest, but must not block it.
    thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
    Ok(child)
}
