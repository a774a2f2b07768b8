//! Ends of connections, told when they are opened or later, from records to spans.

use agentsight::flow::Roles;
use agentsight_abi::{
    Direction::{Read, Write as Sent},
    Kind, RecordHeader,
    socket::AF_INET,
};
use agentsight_tests::records::{records, run};
use serde_json::{Value, json};

const REQUEST: &[u8] = b"POST /v1/embeddings HTTP/1.1\r\nHost: api.openai.com\r\nContent-Length: 39\r\n\r\n\
    {\"model\":\"m\",\"input\":\"how are you now\"}";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 39\r\n\r\n\
    {\"object\":\"list\",\"data\":[],\"model\":\"m\"}";

/// `struct Endpoints` of 10.0.0.1:40000 and 10.0.0.`peer`:443.
fn ends(peer: u8) -> Vec<u8> {
    let mut ends: Vec<u8> = [AF_INET, 40_000, 443, 0].into_iter().flat_map(u16::to_ne_bytes).collect();
    ends.extend([10, 0, 0, 1].into_iter().chain([0; 12]));
    ends.extend([10, 0, 0, peer].into_iter().chain([0; 12]));
    ends
}

/// Two exchanges on a connection that is opened without ends; `told` is put before the record of that number.
fn check(told: &[(usize, Vec<u8>)], expected: [Option<&str>; 2]) {
    let said =
        [(Sent, REQUEST.to_vec()), (Read, RESPONSE.to_vec()), (Sent, REQUEST.to_vec()), (Read, RESPONSE.to_vec())];
    let mut records = records(&said, || usize::MAX);
    for (at, ends) in told.iter().rev() {
        let header =
            RecordHeader { kind: Kind::Ends as u8, direction: Sent as u8, len: ends.len() as u32, ..records[*at].0 };
        records.insert(*at, (header, ends.clone()));
    }
    let outcome = run(&records, Roles::Client);
    let text = |name: &str| {
        outcome.spans.iter().map(|span| span.attributes.get(name).cloned().unwrap_or_default()).collect::<Vec<_>>()
    };
    assert_eq!(
        text("network.peer.address"),
        expected.map(|address| address.map_or(Value::Null, |a| json!(a))),
        "{told:?}"
    );
    assert_eq!(text("network.peer.port"), expected.map(|address| address.map_or(Value::Null, |_| json!(443))));
    assert_eq!(text("server.address"), ["api.openai.com"; 2]);
    assert!(outcome.metrics.all_losses().all(|(_, count)| count == 0));
}

#[test]
fn ends_are_told_at_any_time() {
    // The records: Open, request, response, request, response, Close.
    check(&[], [None, None]);
    check(&[(1, ends(7))], [Some("10.0.0.7"); 2]);
    check(&[(2, ends(7))], [Some("10.0.0.7"); 2]);
    check(&[(3, ends(7))], [None, Some("10.0.0.7")]);
    check(&[(2, ends(7)), (4, ends(8))], [Some("10.0.0.7"), Some("10.0.0.8")]);
}

#[test]
fn ends_that_make_no_sense_tell_nothing() {
    // Cut short, of a connection that isn't known, and of no family.
    check(&[(2, ends(7)[..39].to_vec())], [None, None]);
    check(&[(0, ends(7))], [None, None]);
    check(&[(2, vec![0; 40])], [None, None]);
    check(&[(2, vec![])], [None, None]);
}
