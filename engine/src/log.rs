//! What the engine says about itself, to people: lines of a level, and who gets them.

use std::{fmt, sync::Arc};

/// How much a line matters; those that matter more come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The engine can't go on with something that was asked of it.
    Error,
    /// Something is missing, lost or ignored, or no longer is.
    Warn,
    /// What goes on.
    Info,
}

/// Takes lines up to a level.
#[derive(Clone)]
pub struct Log {
    level: Option<Level>,
    write: Arc<dyn Fn(&str) + Send + Sync>,
}

impl Log {
    /// A log that gives `write` the lines up to `level`; with none, no line at all.
    pub fn new(level: Option<Level>, write: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self { level, write: Arc::new(write) }
    }

    /// Lines on stderr, with the program's name.
    pub fn stderr(level: Option<Level>) -> Self {
        Self::new(level, |text| eprintln!("agentsight: {text}"))
    }

    /// Nobody reads this one.
    pub fn none() -> Self {
        Self::new(None, |_| {})
    }

    /// Says a line of [`Level::Error`].
    pub fn error(&self, text: &str) {
        self.say(Level::Error, text);
    }

    /// Says a line of [`Level::Warn`].
    pub fn warn(&self, text: &str) {
        self.say(Level::Warn, text);
    }

    /// Says a line of [`Level::Info`].
    pub fn info(&self, text: &str) {
        self.say(Level::Info, text);
    }

    /// Says a line of this level.
    pub fn say(&self, level: Level, text: &str) {
        if self.level >= Some(level) {
            (self.write)(text);
        }
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Log").field("level", &self.level).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn lines_beyond_the_level_are_not_said() {
        let check = |level, expected: &[&str]| {
            let lines = Arc::new(Mutex::new(vec![]));
            let kept = Arc::clone(&lines);
            let log = Log::new(level, move |line| kept.lock().unwrap().push(line.to_owned()));
            log.error("error");
            log.warn("warn");
            log.info("info");
            assert_eq!(*lines.lock().unwrap(), expected, "{level:?}");
        };
        check(None, &[]);
        check(Some(Level::Error), &["error"]);
        check(Some(Level::Warn), &["error", "warn"]);
        check(Some(Level::Info), &["error", "warn", "info"]);
    }
}
