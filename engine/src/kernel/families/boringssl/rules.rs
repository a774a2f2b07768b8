//! Which functions of a program without symbols are BoringSSL's `SSL_read` and `SSL_write`.
//!
//! What `ssl/ssl_lib.cc` says of itself tells them: each error that it records comes with its reason and
//! with the name of that file. Reasons are numbers of the library's API (`openssl/ssl.h`), which don't
//! change; which functions give which reasons has hardly changed since 2018:
//!
//! ```text
//! SSL_do_handshake   CONNECTION_TYPE_NOT_SET
//! the read path      UNINITIALIZED, SSL_HANDSHAKE_FAILURE
//! SSL_write          UNINITIALIZED, SSL_HANDSHAKE_FAILURE, BAD_LENGTH
//! SSL_shutdown       UNINITIALIZED, APPLICATION_DATA_ON_SHUTDOWN
//! SSL_new            NULL_SSL_CTX
//! ```
//!
//! `SSL_read` and `SSL_peek` are the callers of the read path that take a buffer and a length, or have it
//! inside where the compiler put it there, and `SSL_read` is the one that takes what it read away. Where
//! the compiler left `SSL_peek` a function of its own, `SSL_read` calls that. Nothing here knows a
//! version; what isn't unique isn't said.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use super::super::code::{Function, Functions, Report, Scan, Text};

/// Reasons, from openssl/ssl.h.
const BAD_LENGTH: u64 = 111;
const NULL_SSL_CTX: u64 = 185;
const SSL_HANDSHAKE_FAILURE: u64 = 215;
const UNINITIALIZED: u64 = 226;
const APPLICATION_DATA_ON_SHUTDOWN: u64 = 291;

/// Loads of the file's name beyond which it isn't what it seems.
const LOADS_MAX: usize = 1_024;

/// Where the functions begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Address of `SSL_read`.
    pub read: u64,
    /// Address of `SSL_write`.
    pub write: u64,
    /// Address of `SSL_new`, if that can be told.
    pub new: Option<u64>,
    /// Address of `SSL_shutdown`, if that can be told.
    pub shutdown: Option<u64>,
}

/// Why the functions can't be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unclear {
    /// No code refers to the file's name.
    #[error("no code refers to ssl_lib.cc")]
    NoReference,
    /// It isn't one function that has the reasons of `SSL_write`.
    #[error("{0} functions look like SSL_write")]
    Write(usize),
    /// It isn't one function that reads and takes away.
    #[error("{0} functions look like SSL_read")]
    Read(usize),
}

/// Looks for the functions in `text`; `names` are the addresses of the names of `ssl_lib.cc`.
///
/// # Errors
/// Why they can't be told.
pub fn find(text: &Text<'_>, names: &[u64]) -> Result<Found, Unclear> {
    let scan = text.scan(names).ok_or(Unclear::NoReference)?;
    let loads: BTreeSet<u64> = text.loads(&scan, names).into_keys().collect();
    if loads.is_empty() || loads.len() > LOADS_MAX {
        return Err(Unclear::NoReference);
    }
    let called = text.called_before(&scan, &loads);
    let mut around = Functions::new(text, &called);
    let mut functions: BTreeMap<u64, (Function, BTreeSet<u64>)> = BTreeMap::new();
    for &load in &loads {
        let Some(start) = around.around(load) else { continue };
        let (function, reasons) = match functions.entry(start) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let Some(function) = text.function(start, &called) else { continue };
                new.insert((function, BTreeSet::new()))
            }
        };
        let report: Option<Report> = function.report(load);
        reasons.extend(report.map(|report| report.reason));
    }
    let with = |wanted: &[u64], unwanted: &[u64]| -> Vec<u64> {
        let fits = |reasons: &BTreeSet<u64>| {
            wanted.iter().all(|reason| reasons.contains(reason))
                && !unwanted.iter().any(|reason| reasons.contains(reason))
        };
        functions.iter().filter(|(_, (_, reasons))| fits(reasons)).map(|(start, _)| *start).collect()
    };

    let takes_buffer = |function: &Function| function.arguments_used(&BTreeSet::new())[..3] == [true; 3];
    let mut writes = with(&[UNINITIALIZED, SSL_HANDSHAKE_FAILURE, BAD_LENGTH], &[APPLICATION_DATA_ON_SHUTDOWN]);
    writes.retain(|start| takes_buffer(&functions[start].0));
    let &[write] = &writes[..] else { return Err(Unclear::Write(writes.len())) };

    let paths = with(&[UNINITIALIZED, SSL_HANDSHAKE_FAILURE], &[BAD_LENGTH, APPLICATION_DATA_ON_SHUTDOWN]);
    let read = read(text, &scan, &called, &functions, &paths)?;
    let only = |starts: Vec<u64>| if let [one] = starts[..] { Some(one) } else { None };
    let new = only(with(&[NULL_SSL_CTX], &[]));
    let shutdown = only(with(&[UNINITIALIZED, APPLICATION_DATA_ON_SHUTDOWN], &[BAD_LENGTH]));
    Ok(Found { read, write, new, shutdown })
}

/// Walks up from the read path to who takes a buffer and takes away what was read.
fn read(
    text: &Text<'_>,
    scan: &Scan,
    called: &BTreeSet<u64>,
    functions: &BTreeMap<u64, (Function, BTreeSet<u64>)>,
    paths: &[u64],
) -> Result<u64, Unclear> {
    let mut level: BTreeSet<u64> = paths.iter().copied().collect();
    let mut takers = BTreeSet::new();
    // The path itself, who calls it, and who calls those: ssl_read_impl, SSL_peek, SSL_read.
    for _ in 0..3 {
        let mut taking = BTreeSet::new();
        let mut found = BTreeSet::new();
        for &start in &level {
            let walked;
            let function = match functions.get(&start) {
                Some((function, _)) => function,
                None => {
                    let Some(function) = text.function(start, called) else { continue };
                    walked = function;
                    &walked
                }
            };
            if function.arguments_used(&takers)[..3] == [true; 3] {
                taking.insert(start);
                if function.advances_span() {
                    found.insert(start);
                }
            }
        }
        match found.len() {
            0 => {}
            1 => return found.first().copied().ok_or(Unclear::Read(0)),
            several => return Err(Unclear::Read(several)),
        }
        takers.extend(taking);
        level = text.calling(scan, called, &level);
    }
    Err(Unclear::Read(0))
}
