//! Where requests go, worked out once for each method, target and host.
//!
//! A client asks the same few addresses again and again. Provider, dialect, host and model follow from the
//! method, the target and what is named as its host, and from nothing else, so a request that has the same
//! bytes in all three has the same destination.

use bumpalo::Bump;

use super::{
    dialect::{Dialect, Route},
    route::{self, Target},
};
use crate::{
    limits::{DESTINATION_BYTES_MAX, DESTINATIONS_MAX},
    wire::{self, RequestHead},
};

/// What method, target and host of a request say. The texts are in the exchange's arena.
pub(super) struct Destination<'a> {
    /// `gen_ai.provider.name`, or the host if that is not known.
    pub provider: &'a str,
    /// A rule knew the host.
    pub host_known: bool,
    pub host: Option<&'a str>,
    pub port: Option<u16>,
    /// What the path belongs to.
    pub matched: Option<(&'static Dialect, &'static Route)>,
    /// The model that the path names.
    pub model: Option<&'a str>,
    /// The path is known to be something other than a call.
    pub is_no_call: bool,
}

impl<'a> Destination<'a> {
    fn new(arena: &'a Bump, head: &RequestHead<'_>) -> Option<Self> {
        let target = Target::of(head)?;
        let (provider, host_known) = route::provider_of(arena, &target);
        let matched = route::dialect(head.method, &target, provider);
        let model = matched.as_ref().and_then(|matched| matched.model);
        Some(Self {
            provider,
            host_known,
            host: target.authority.host.map(|host| &*arena.alloc_str(host)),
            port: target.authority.port,
            model: model.and_then(|model| route::percent_decoded(arena, model)),
            matched: matched.map(|matched| (matched.dialect, matched.route)),
            is_no_call: route::is_no_call(&target),
        })
    }
}

/// Destinations of earlier requests of a worker, the last one first.
#[derive(Default)]
pub(super) struct Destinations(Vec<Known>);

/// A destination with its texts, and the request's bytes that it follows from.
#[derive(Default)]
struct Known {
    /// Method, target and host, one behind the other.
    bytes: Vec<u8>,
    method_bytes: usize,
    target_bytes: usize,
    names_host: bool,
    /// Provider, host and model, one behind the other.
    texts: String,
    provider_bytes: usize,
    host_bytes: Option<usize>,
    has_model: bool,
    host_known: bool,
    port: Option<u16>,
    matched: Option<(&'static Dialect, &'static Route)>,
    is_no_call: bool,
}

impl Destinations {
    /// Where the request with this head goes; `None` when its target is no path.
    pub fn of<'a>(&mut self, arena: &'a Bump, head: &RequestHead<'_>) -> Option<Destination<'a>> {
        let named = head.authority.or_else(|| wire::field(head.fields, "host"));
        if let Some(at) = self.0.iter().position(|known| known.follows_from(head, named)) {
            self.0.swap(0, at);
            return self.0.first()?.destination(arena);
        }
        let destination = Destination::new(arena, head)?;
        if head.method.len() + head.target.len() + named.map_or(0, <[u8]>::len) <= DESTINATION_BYTES_MAX {
            let oldest = if self.0.len() < DESTINATIONS_MAX { None } else { self.0.pop() };
            let mut known = oldest.unwrap_or_default();
            known.become_like(head, named, &destination);
            self.0.insert(0, known);
        }
        Some(destination)
    }
}

impl Known {
    fn become_like(&mut self, head: &RequestHead<'_>, named: Option<&[u8]>, destination: &Destination<'_>) {
        self.bytes.clear();
        self.texts.clear();
        [head.method, head.target, named.unwrap_or_default()]
            .into_iter()
            .for_each(|part| self.bytes.extend_from_slice(part));
        (self.method_bytes, self.target_bytes) = (head.method.len(), head.target.len());
        self.names_host = named.is_some();
        let Destination { provider, host_known, host, port, matched, model, is_no_call } = *destination;
        [provider, host.unwrap_or_default(), model.unwrap_or_default()]
            .into_iter()
            .for_each(|text| self.texts.push_str(text));
        (self.provider_bytes, self.host_bytes, self.has_model) = (provider.len(), host.map(str::len), model.is_some());
        (self.host_known, self.port, self.matched, self.is_no_call) = (host_known, port, matched, is_no_call);
    }

    fn follows_from(&self, head: &RequestHead<'_>, named: Option<&[u8]>) -> bool {
        let parts = self.bytes.split_at_checked(self.method_bytes);
        let parts = parts.and_then(|(method, rest)| Some((method, rest.split_at_checked(self.target_bytes)?)));
        let Some((method, (target, host))) = parts else { return false };
        named.is_some() == self.names_host
            && host == named.unwrap_or_default()
            && target == head.target
            && method == head.method
    }

    fn destination<'a>(&self, arena: &'a Bump) -> Option<Destination<'a>> {
        let (provider, rest) = arena.alloc_str(&self.texts).split_at_checked(self.provider_bytes)?;
        let (host, model) = rest.split_at_checked(self.host_bytes.unwrap_or(0))?;
        Some(Destination {
            provider,
            host_known: self.host_known,
            host: self.host_bytes.is_some().then_some(host),
            port: self.port,
            matched: self.matched,
            model: self.has_model.then_some(model),
            is_no_call: self.is_no_call,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Field;

    fn told(destination: Option<Destination<'_>>) -> String {
        let told = |to: Destination<'_>| {
            let Destination { provider, host_known, host, port, matched, model, is_no_call } = to;
            let matched = matched.map(|(dialect, route)| (dialect.name, route.method, route.path));
            format!("{provider:?} {host_known} {host:?} {port:?} {matched:?} {model:?} {is_no_call}")
        };
        destination.map_or_else(String::new, told)
    }

    /// In any order, more of them than are known at once, each says what it says alone.
    #[test]
    fn a_destination_is_that_of_all_three() {
        let arena = Bump::new();
        let mut known = Destinations::default();
        let methods = ["POST", "GET", "POS"];
        let targets =
            ["/v1/chat/completions", "/v1/messages", "/v1/models/m%3Ax:generateContent", "T/v1/messages", "*"];
        let hosts = [None, Some(""), Some("api.openai.com"), Some("LLM.example:81"), Some("sapi.openai.com")];
        let mut seen = std::collections::HashSet::new();
        for turn in 0..2_000_usize {
            // Every step that has no factor in common with the number of them all goes through all.
            let choice = turn * 31 % (methods.len() * targets.len() * hosts.len() * 2);
            let (method, choice) = (methods[choice % methods.len()], choice / methods.len());
            let (target, choice) = (targets[choice % targets.len()], choice / targets.len());
            let (host, by_field) = (hosts[choice % hosts.len()].map(str::as_bytes), choice / hosts.len() == 0);
            let field = host.filter(|_| by_field).map(|value| Field { name: b"Host", value });
            let head = RequestHead {
                method: method.as_bytes(),
                target: target.as_bytes(),
                authority: host.filter(|_| !by_field),
                protocol: None,
                fields: field.as_slice(),
            };
            for _ in 0..1 + turn % 3 {
                let expect = told(Destination::new(&arena, &head));
                assert_eq!(told(known.of(&arena, &head)), expect, "{method} {target} {host:?}");
                seen.insert(expect);
            }
        }
        assert!(seen.len() > 15 && known.0.len() == DESTINATIONS_MAX, "{}", seen.len());
    }
}
