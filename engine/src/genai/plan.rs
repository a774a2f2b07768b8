//! Rules put in the order in which a document is walked.
//!
//! A dialect's rules say of each field which keys it may have. A plan has each key of an object once,
//! with a slot of its own, so that one pass over the members tells which rules have something to take,
//! and the walk over the document knows what it may pass over.

use super::{
    facts::{Rule, To},
    failure::{self, Failure},
    json::{Inside, Json, Shape},
};

/// How an object is read. Plans are made once and kept for good, as the rules are.
pub(super) struct Plan {
    /// The keys that rules, or whoever else reads the object, ask for.
    pub shape: &'static Shape,
    /// The rules in their order.
    pub steps: Vec<Step>,
    /// The slots of the keys that tell of an error, a bit each.
    pub failing: u64,
}

/// A rule.
pub(super) struct Step {
    /// The slots of its keys: the first whose value fits counts. A rule of the whole object has none.
    pub slots: Vec<u8>,
    /// A bit for each of the slots.
    pub bits: u64,
    /// What becomes of the value.
    pub to: To,
    /// How the objects in the value are read, if they have rules of their own.
    pub inside: Option<&'static Plan>,
}

/// A key, with what is asked for inside its value.
struct Asked {
    key: &'static str,
    /// The rules of the objects inside, where only one rule has the key and that is all that it asks for.
    rules: Option<&'static [Rule]>,
    /// Something else inside is asked for.
    all: bool,
    /// Keys of the objects inside.
    keys: Vec<&'static str>,
    /// Paths of others.
    paths: Vec<&'static [&'static str]>,
}

impl Plan {
    /// The error that a document reports, which was walked by this plan or by none.
    pub fn failure<'t>(&self, json: Json<'t>) -> Option<Failure<'t>> {
        json.may_have(self.shape, self.failing).then(|| failure::reported(json))?
    }

    /// A plan for `rules`, when somebody also asks for what is at `paths`.
    pub fn of(rules: &'static [Rule], paths: &[&'static [&'static str]]) -> &'static Self {
        Self::with(rules, &[], paths)
    }

    /// The same, when all of what is under `keys` is asked for too.
    fn with(rules: &'static [Rule], keys: &[&'static str], paths: &[&'static [&'static str]]) -> &'static Self {
        let mut asked: Vec<Asked> = Vec::new();
        keys.iter().for_each(|key| entry(&mut asked, key).all = true);
        for rule in rules {
            for key in rule.keys {
                let asked = entry(&mut asked, key);
                match rule.inside() {
                    // The same rules may be behind several keys, but not several rules behind one.
                    Some(inside) if asked.rules.is_none() => asked.rules = Some(inside),
                    _ => match rule.to {
                        To::Seeing(keys, _) => asked.keys.extend(keys),
                        _ => asked.all = true,
                    },
                }
            }
        }
        for path in paths.iter().chain(rules.iter().flat_map(|rule| rule.sees)) {
            let Some((key, rest)) = path.split_first() else { continue };
            let asked = entry(&mut asked, key);
            if rest.is_empty() { asked.all = true } else { asked.paths.push(rest) }
        }
        let mut plans: Vec<Option<&'static Self>> = asked
            .iter()
            .map(|asked| {
                let is_some = asked.rules.is_some() || !asked.keys.is_empty() || !asked.paths.is_empty();
                let is_bounded = !asked.all && is_some;
                is_bounded.then(|| Self::with(asked.rules.unwrap_or_default(), &asked.keys, &asked.paths))
            })
            .collect();
        let keys = asked.iter().zip(&plans).map(|(asked, plan)| {
            (asked.key, plan.and_then(|plan| plan.shape.bounded()).map_or(Inside::All, Inside::Shaped))
        });
        let open = rules.iter().any(|rule| rule.keys.is_empty() && rule.sees.is_empty());
        let shape: &'static Shape = Box::leak(Box::new(Shape::new(keys, open)));
        let steps = rules.iter().map(|rule| {
            let slots: Vec<u8> =
                rule.keys.iter().filter_map(|key| shape.slot(key.as_bytes())).map(|slot| slot as u8).collect();
            let inside = rule.inside().map(|inside| {
                let planned = slots.first().and_then(|slot| plans.get_mut(usize::from(*slot))?.as_ref().copied());
                planned.unwrap_or_else(|| Self::of(inside, &[]))
            });
            let bits = slots.iter().fold(0, |bits, slot| bits | 1 << slot);
            Step { slots, bits, to: rule.to, inside }
        });
        let steps = steps.collect();
        let slots = failure::REPORTING.iter().filter_map(|key| shape.slot(key.as_bytes()));
        let failing = slots.fold(0, |failing, slot| failing | 1 << slot);
        Box::leak(Box::new(Self { shape, steps, failing }))
    }
}

fn entry<'a>(asked: &'a mut Vec<Asked>, key: &'static str) -> &'a mut Asked {
    let at = asked.iter().position(|asked| asked.key == key).unwrap_or_else(|| {
        asked.push(Asked { key, rules: None, all: false, keys: Vec::new(), paths: Vec::new() });
        asked.len() - 1
    });
    &mut asked[at]
}
