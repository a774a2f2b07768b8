//! Containers and pods that the user chose, whenever they start.

use std::{
    collections::HashMap,
    path::Path,
    str::FromStr,
    time::{Duration, Instant},
};

use crate::sys::container::{self, Container, Names};

/// A cgroup that was no chosen container's is looked at again after so long, because a runtime may
/// write its state a little later than it starts the container.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// Cgroups whose verdict is remembered.
const SEEN_MAX: usize = 4_096;
/// The part of an id that runtimes show.
const SHORT_ID: usize = 12;

/// What was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A container by its name or the beginning of its id.
    Container(String),
    /// All containers of a pod, or one of them.
    Pod {
        /// Namespace.
        namespace: String,
        /// Name.
        pod: String,
        /// The container's name, or none for all.
        container: Option<String>,
    },
}

impl Wanted {
    /// Reads `NAMESPACE/POD`, optionally with `/CONTAINER`.
    ///
    /// # Errors
    /// What it should look like.
    pub fn pod(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('/').collect();
        match parts[..] {
            [namespace, pod] | [namespace, pod, _] if parts.iter().all(|part| !part.is_empty()) => Ok(Self::Pod {
                namespace: namespace.to_owned(),
                pod: pod.to_owned(),
                container: parts.get(2).map(|name| (*name).to_owned()),
            }),
            _ => Err(format!("`{text}` is no pod: give NAMESPACE/NAME")),
        }
    }

    fn is(&self, container: &Container, names: &Names) -> bool {
        let called = |name: &str| names.container.as_deref() == Some(name);
        match self {
            Self::Container(text) => {
                let is_id = text.len() >= SHORT_ID && container.id.starts_with(text.as_str());
                is_id || called(text)
            }
            Self::Pod { namespace, pod, container: name } => {
                let in_pod = names.pod.as_deref() == Some(pod) && names.namespace.as_deref() == Some(namespace);
                in_pod && name.as_deref().is_none_or(called)
            }
        }
    }
}

/// A file to probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Binary {
    /// A path of the host.
    File(std::path::PathBuf),
    /// A file in a container, or the program that it runs.
    Inside(Wanted, Option<String>),
}

impl FromStr for Binary {
    type Err = String;

    /// Reads a path, `docker://NAME` or `k8s://NAMESPACE/POD/CONTAINER`, either with `:/PATH` after it.
    fn from_str(text: &str) -> Result<Self, String> {
        let Some((scheme, rest)) = text.split_once("://") else { return Ok(Self::File(text.into())) };
        let (name, path) = match rest.split_once(":/") {
            Some((name, path)) => (name, Some(format!("/{path}"))),
            None => (rest, None),
        };
        match scheme {
            "docker" | "podman" | "containerd" if !name.is_empty() => {
                Ok(Self::Inside(Wanted::Container(name.to_owned()), path))
            }
            "k8s" => Ok(Self::Inside(Wanted::pod(name)?, path)),
            _ => Err(format!("`{text}`: give a path, docker://NAME or k8s://NAMESPACE/POD/CONTAINER")),
        }
    }
}

impl Binary {
    /// Paths that lead to it from here. Of a container that is every program that it runs now.
    ///
    /// # Errors
    /// When no such container runs.
    pub fn paths(&self) -> Result<Vec<std::path::PathBuf>, String> {
        let (wanted, inside) = match self {
            Self::File(path) => return Ok(vec![path.clone()]),
            Self::Inside(wanted, inside) => (wanted, inside),
        };
        let mut paths: Vec<_> = crate::sys::process::all()
            .unwrap_or_default()
            .into_iter()
            .filter(|&pid| container::of(pid).is_some_and(|own| wanted.is(&own, &own.names(Path::new("/")))))
            .map(|pid| match inside {
                Some(path) => Path::new("/proc").join(pid.to_string()).join("root").join(path.trim_start_matches('/')),
                None => Path::new("/proc").join(pid.to_string()).join("exe"),
            })
            .collect();
        if inside.is_some() {
            paths.truncate(1);
        }
        if paths.is_empty() { Err("no process of such a container runs".to_owned()) } else { Ok(paths) }
    }
}

/// Finds the cgroups of chosen containers as their processes show up.
#[derive(Debug, Default)]
pub struct Search {
    wanted: Vec<Wanted>,
    /// Verdict by cgroup path, and when it was found.
    seen: HashMap<String, (bool, Instant)>,
}

impl Search {
    /// A search for these.
    pub fn new(wanted: Vec<Wanted>) -> Self {
        Self { wanted, seen: HashMap::new() }
    }

    /// There is something to look for.
    pub fn is_on(&self) -> bool {
        !self.wanted.is_empty()
    }

    /// The path of process `pid`'s cgroup, when it is a chosen container's that wasn't found before.
    pub fn look(&mut self, pid: u32, now: Instant) -> Option<String> {
        let path = container::cgroup_path(pid)?;
        if self.seen.get(&path).is_some_and(|(found, at)| *found || now.duration_since(*at) < LOOK_AGAIN) {
            return None;
        }
        let own = container::from_path(&path);
        let names = own.as_ref().map(|own| own.names(Path::new("/"))).unwrap_or_default();
        let found = own.is_some_and(|own| self.wanted.iter().any(|wanted| wanted.is(&own, &names)));
        if self.seen.len() >= SEEN_MAX {
            self.seen.clear();
        }
        self.seen.insert(path.clone(), (found, now));
        found.then_some(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_told_by_id_name_and_pod() {
        let container = Container { id: "a1".repeat(32), pod_uid: None };
        let some = |text: &str| Some(text.to_owned());
        let names = Names { container: some("gateway"), pod: some("gw-0"), namespace: some("llm") };
        for (wanted, expected) in [
            (Wanted::Container("gateway".into()), true),
            (Wanted::Container("a1".repeat(6)), true),
            (Wanted::Container("a1".repeat(32)), true),
            // Too short to be meant as an id.
            (Wanted::Container("a1a1".into()), false),
            (Wanted::Container("gate".into()), false),
            (Wanted::pod("llm/gw-0").unwrap(), true),
            (Wanted::pod("llm/gw-0/gateway").unwrap(), true),
            (Wanted::pod("llm/gw-0/sidecar").unwrap(), false),
            (Wanted::pod("other/gw-0").unwrap(), false),
        ] {
            assert_eq!(wanted.is(&container, &names), expected, "{wanted:?}");
        }
        for wrong in ["", "pod", "a/b/c/d", "/pod", "ns/"] {
            assert!(Wanted::pod(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn binaries_are_read() {
        let inside = |wanted, path: Option<&str>| Ok(Binary::Inside(wanted, path.map(str::to_owned)));
        let pod = |text| Wanted::pod(text).unwrap();
        for (text, expected) in [
            ("/usr/bin/node", Ok(Binary::File("/usr/bin/node".into()))),
            ("docker://web", inside(Wanted::Container("web".into()), None)),
            ("docker://web:/usr/bin/node", inside(Wanted::Container("web".into()), Some("/usr/bin/node"))),
            ("k8s://llm/gw-0/gateway", inside(pod("llm/gw-0/gateway"), None)),
        ] {
            assert_eq!(text.parse::<Binary>(), expected);
        }
        for wrong in ["docker://", "k8s://llm", "ftp://x"] {
            assert!(wrong.parse::<Binary>().is_err(), "{wrong}");
        }
        assert!(Binary::Inside(Wanted::Container("there-is-none".into()), None).paths().is_err());
    }
}
