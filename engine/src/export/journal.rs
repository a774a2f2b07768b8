//! What a person should read of what happens between us and a collector, and how seldom.

use std::time::{Duration, Instant};

use super::{answer::Trouble, batch::Outcome};

/// What was said is not said again for so long, whatever happens in between.
const QUIET: Duration = Duration::from_secs(60);

/// How things stand with the collector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Topic {
    /// It takes what it gets.
    #[default]
    Fine,
    /// It takes what it gets, with a warning.
    Warning,
    /// It takes requests but for some records.
    Rejecting,
    /// Attempts fail.
    Failing,
    /// Attempts fail, and will until somebody does something.
    Stuck,
    /// Attempts fail until the time is over.
    GaveUp,
    /// It refuses requests.
    Refusing,
}

/// Keeps the log short: a collector that is down for an hour is two lines, and one that comes and
/// goes with every request a few lines a minute.
#[derive(Default)]
pub(super) struct Journal {
    topic: Topic,
    /// When each topic was last said.
    said: Vec<(Topic, Instant)>,
    /// The trouble was said, so its end will be too.
    owed: bool,
    /// Nothing has got through since there was something to do for somebody.
    stuck: bool,
}

impl Journal {
    /// The line to log about a failed attempt that will be followed by another.
    pub(super) fn retrying(&mut self, trouble: &Trouble) -> Option<String> {
        let why = &trouble.why;
        let Some(remedy) = trouble.remedy else {
            let say = !self.stuck && self.topic != Topic::GaveUp && self.is_trouble(Topic::Failing);
            return say.then(|| format!("export fails, trying again: {why}"));
        };
        // It has to be said even if attempts failed before, for another reason.
        let say = !std::mem::replace(&mut self.stuck, true) && self.is_trouble(Topic::Stuck);
        say.then(|| format!("export fails and will not work by itself: {why}; {remedy}"))
    }

    /// The line to log about the end of a request with records that are called `what`.
    pub(super) fn done(&mut self, outcome: &Outcome, what: &str) -> Option<String> {
        self.stuck &= !matches!(outcome, Outcome::Delivered { .. });
        match outcome {
            Outcome::Delivered { rejected: 0, message } if message.is_empty() => {
                self.turns_to(Topic::Fine);
                std::mem::take(&mut self.owed).then(|| "export works again".to_owned())
            }
            Outcome::Delivered { rejected: 0, message } => {
                self.turns_to(Topic::Warning).then(|| format!("the collector accepts {what} but warns: {message}"))
            }
            Outcome::Delivered { rejected, message } => self
                .turns_to(Topic::Rejecting)
                .then(|| format!("the collector rejected {rejected} {what} of a request: {message}")),
            Outcome::Refused { why } => self
                .is_trouble(Topic::Refusing)
                .then(|| format!("the collector refuses the {what}, which are dropped: {why}")),
            Outcome::Later { why } => {
                self.is_trouble(Topic::GaveUp).then(|| format!("export keeps failing, {what} are dropped: {why}"))
            }
        }
    }

    fn is_trouble(&mut self, topic: Topic) -> bool {
        let say = self.turns_to(topic);
        self.owed |= say;
        say
    }

    /// Remembers how things stand, and tells whether that is news.
    fn turns_to(&mut self, topic: Topic) -> bool {
        if std::mem::replace(&mut self.topic, topic) == topic {
            return false;
        }
        let now = Instant::now();
        self.said.retain(|(_, when)| now.duration_since(*when) < QUIET);
        let news = self.said.iter().all(|(said, _)| *said != topic);
        if news {
            self.said.push((topic, now));
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of a sequence of events: `f`ailed attempts, outcomes that are `d`elivered,
    /// `w`arned of, `p`artial, `l`ater and `r`efused.
    fn check(events: &str, expected: &[&str]) {
        let mut journal = Journal::default();
        let lines = events.chars().enumerate().filter_map(|(index, event)| {
            let why = format!("request {index}");
            let delivered = |rejected, message| Outcome::Delivered { rejected, message };
            match event {
                'f' => journal.retrying(&Trouble { why, remedy: None }),
                'F' => journal.retrying(&Trouble { why, remedy: Some("mend it") }),
                'd' => journal.done(&delivered(0, String::new()), "spans"),
                'w' => journal.done(&delivered(0, why), "spans"),
                'p' => journal.done(&delivered(2, why), "spans"),
                'l' => journal.done(&Outcome::Later { why }, "spans"),
                _ => journal.done(&Outcome::Refused { why }, "spans"),
            }
        });
        let lines: Vec<_> = lines.collect();
        assert_eq!(lines.len(), expected.len(), "{events}: {lines:?}");
        for (line, expected) in lines.iter().zip(expected) {
            assert!(line.contains(expected), "{events}: {line}");
        }
    }

    #[test]
    fn each_change_is_said_once() {
        check("dddd", &[]);
        check("fffd", &["trying again: request 0", "works again"]);
        check("Fffd", &["will not work by itself: request 0; mend it", "works again"]);
        check("fflfflffld", &["trying again", "are dropped", "works again"]);
        check("fFfFd", &["trying again", "will not work by itself: request 1; mend it", "works again"]);
        check("FFlFFlFFl", &["will not work by itself", "are dropped"]);
        check("rrrr", &["refuses the spans, which are dropped: request 0"]);
        check("rrdd", &["refuses", "works again"]);
        check("ppp", &["rejected 2 spans of a request: request 0"]);
        check("wwpp", &["warns: request 0", "rejected"]);
    }

    #[test]
    fn what_comes_and_goes_is_not_said_all_the_time() {
        check("fdfdfdfdfd", &["trying again", "works again"]);
        check("rdrdrdrd", &["refuses", "works again"]);
        check("FdFdFdFd", &["will not work by itself", "works again"]);
        check("pdpdpdpd", &["rejected"]);
        check("frfrfrfr", &["trying again", "refuses"]);
    }
}
