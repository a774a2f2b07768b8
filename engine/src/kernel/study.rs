//! A thread beside: it looks into files for what takes time to find, one after the other, so that the
//! thread that attaches never waits for it.

use std::{
    fs::File,
    path::PathBuf,
    sync::mpsc::{Receiver, Sender, channel},
    thread,
};

use super::{
    Error,
    families::{self, Effort, Finding},
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
    /// Path as it was found.
    pub path: PathBuf,
}

type Answer<Id> = (Subject<Id>, Result<Finding, image::Error>);

/// The thread's other end. The thread ends when this is dropped.
pub struct Study<Id> {
    subjects: Sender<Subject<Id>>,
    answers: Receiver<Answer<Id>>,
}

impl<Id: Send + 'static> Study<Id> {
    /// Starts the thread, which uses `waker` when it has something.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn start(waker: Waker) -> Result<Self, Error> {
        let (subjects, inbox) = channel::<Subject<Id>>();
        let (outbox, answers) = channel();
        let run = move || {
            for subject in inbox {
                let found = examine(&subject.file, |image| families::find(image, Effort::Study));
                if outbox.send((subject, found)).is_err() {
                    return;
                }
                waker.wake();
            }
        };
        thread::Builder::new().name("agentsight-study".to_owned()).spawn(run).map_err(Error::Watch)?;
        Ok(Self { subjects, answers })
    }

    /// Has a file looked into; false when the thread has ended. The asker bounds how many wait.
    pub fn ask(&self, subject: Subject<Id>) -> bool {
        self.subjects.send(subject).is_ok()
    }

    /// A file that has been looked into, with what is in it, or why that can't be told.
    pub fn result(&self) -> Option<Answer<Id>> {
        self.answers.try_recv().ok()
    }
}

/// Whether a file may have something inside that takes time to find.
pub fn is_worthwhile(file: &File) -> bool {
    families::FAMILIES.iter().any(|family| family.effort == Effort::Study)
        && file.metadata().is_ok_and(|metadata| metadata.len() >= BYTES_MIN)
}
