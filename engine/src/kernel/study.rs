//! A thread beside: it looks into files for what takes time to find, one after the other, so that the
//! thread that attaches never waits for it.

use std::{
    fs::File,
    panic::resume_unwind,
    path::PathBuf,
    sync::mpsc::{Receiver, Sender, channel},
    thread,
};

use super::{
    Error,
    families::{self, Effort, Family, Finding},
    findings::{self, Identity},
    image::{self, examine},
};
use crate::sys::wait::Waker;

/// A smaller file has no TLS implementation inside that symbols don't tell.
const BYTES_MIN: u64 = 512 * 1024;

/// A file to be looked into.
pub struct Subject<Id> {
    /// What the asker knows it by.
    pub id: Id,
    /// The file itself.
    pub file: File,
    /// As it was before.
    pub identity: Identity,
    /// Path as it was found.
    pub path: PathBuf,
}

/// What is in a file.
pub struct Studied {
    /// What was found in it.
    pub finding: Finding,
    /// Its build-id.
    pub build_id: Option<Box<[u8]>>,
}

type Answer<Id> = (Subject<Id>, Result<Studied, image::Error>);

enum Task<Id> {
    Look(Subject<Id>),
    Save(PathBuf, String),
}

/// The thread's other end. The thread ends when this is dropped.
pub struct Study<Id> {
    tasks: Sender<Task<Id>>,
    answers: Receiver<Answer<Id>>,
}

impl<Id: Send + 'static> Study<Id> {
    /// Starts the thread, which uses `waker` when it has something.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn start(waker: Waker) -> Result<Self, Error> {
        let (tasks, inbox) = channel::<Task<Id>>();
        let (outbox, answers) = channel();
        let run = move || {
            for task in inbox {
                let subject = match task {
                    Task::Look(subject) => subject,
                    Task::Save(folder, text) => {
                        // Without it files are only looked into once more.
                        let _ = findings::save(&folder, &text);
                        continue;
                    }
                };
                let found = study(&subject.file);
                if outbox.send((subject, found)).is_err() {
                    return;
                }
                waker.wake();
            }
        };
        thread::Builder::new().name("agentsight-study".to_owned()).spawn(run).map_err(Error::Watch)?;
        Ok(Self { tasks, answers })
    }

    /// Has a file looked into; false when the thread has ended. The asker bounds how many wait.
    pub fn ask(&self, subject: Subject<Id>) -> bool {
        self.tasks.send(Task::Look(subject)).is_ok()
    }

    /// Has findings written into a folder.
    pub fn save(&self, folder: PathBuf, text: String) {
        let _ = self.tasks.send(Task::Save(folder, text));
    }

    /// A file that has been looked into, with what is in it, or why that can't be told.
    pub fn result(&self) -> Option<Answer<Id>> {
        self.answers.try_recv().ok()
    }
}

/// Looks for what takes time to find, for each family on a thread of its own: meanwhile a program runs unseen. Where
/// there is nothing of that kind, it may still be known that there is something.
///
/// # Errors
/// When the file contradicts itself.
pub fn study(file: &File) -> Result<Studied, image::Error> {
    let build_id = examine(file, |image| Ok(image.build_id().map(Box::from)))?;
    let families = families::FAMILIES.iter().filter(|family| family.effort == Effort::Study);
    let finding = thread::scope(|scope| {
        let look = |family: &'static Family| move || examine(file, family.find);
        let looking: Vec<_> =
            families.map(|family| (family, thread::Builder::new().spawn_scoped(scope, look(family)))).collect();
        looking.into_iter().try_fold(Finding::default(), |found, (family, looking)| {
            let one = match looking {
                Ok(looking) => looking.join().unwrap_or_else(|panic| resume_unwind(panic)),
                // There are too many threads here.
                Err(_) => look(family)(),
            };
            Ok::<_, image::Error>(found.and(one?))
        })
    })?;
    let finding = if finding == Finding::default() { examine(file, families::unknown)? } else { finding };
    Ok(Studied { finding, build_id })
}

/// Whether a file may have something inside that takes time to find.
pub fn is_worthwhile(file: &File) -> bool {
    families::FAMILIES.iter().any(|family| family.effort == Effort::Study)
        && file.metadata().is_ok_and(|metadata| metadata.len() >= BYTES_MIN)
}
