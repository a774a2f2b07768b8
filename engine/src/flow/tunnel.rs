//! WebSockets inside HTTP/2 streams (RFC 8441): each is opened by an extended CONNECT, and lives and
//! ends with its stream.

use std::collections::BTreeMap;

use super::{Outlet, context::Context, socket::Socket};
use crate::{
    genai::{Ended, Upgrade},
    metrics::Cause,
    wire::{RequestHead, ResponseHead, STATUS_UNKNOWN, http2::StreamId, websocket::Extensions},
};

/// The tunnels of one connection that may carry calls.
#[derive(Default)]
pub(super) struct Tunnels(BTreeMap<StreamId, Tunnel>);

enum Tunnel {
    /// The server has not answered.
    Asked(Box<Upgrade>),
    Open(Box<Open>),
}

struct Open {
    socket: Socket,
    /// When the message under way was begun, by whether it is the client's.
    begun_ns: [u64; 2],
}

/// What a response says of a tunnel.
pub(super) enum Answer {
    /// It is open: the stream is no exchange any more.
    Opened,
    /// It was asked for, and is refused.
    Refused(Box<Upgrade>),
    /// The stream is no tunnel that may carry calls.
    Other,
}

impl Tunnels {
    /// A request was seen, which may ask for a tunnel.
    pub fn ask<O: Outlet>(&mut self, stream: StreamId, head: &RequestHead<'_>, context: &Context<'_, O>) {
        if head.protocol.is_some()
            && context.shared.settings.roles.include(context.role)
            && let Some(upgrade) = Upgrade::of(head)
        {
            self.0.insert(stream, Tunnel::Asked(Box::new(upgrade)));
        }
    }

    /// The head of a stream's final response was seen.
    pub fn answer<O: Outlet>(&mut self, stream: StreamId, head: &ResponseHead<'_>, context: &Context<'_, O>) -> Answer {
        let Some(Tunnel::Asked(upgrade)) = self.0.remove(&stream) else { return Answer::Other };
        match head.status {
            // RFC 9110 section 9.3.6: any 2xx opens it.
            200..300 => {
                if let Ok(extensions) = Extensions::agreed(head.fields) {
                    let socket = Socket::new(upgrade, &extensions, first_sequence(stream));
                    self.0.insert(stream, Tunnel::Open(Box::new(Open { socket, begun_ns: [0; 2] })));
                } else {
                    context.shared.metrics.lost(Cause::SocketGivenUp, 1);
                }
                Answer::Opened
            }
            STATUS_UNKNOWN => {
                context.shared.metrics.lost(Cause::SocketGivenUp, 1);
                Answer::Opened
            }
            400.. => Answer::Refused(upgrade),
            _ => Answer::Other,
        }
    }

    /// Bytes of a stream, which may be a tunnel.
    pub fn feed<O: Outlet>(&mut self, stream: StreamId, of_client: bool, bytes: &[u8], context: &mut Context<'_, O>) {
        let Some(Tunnel::Open(open)) = self.0.get_mut(&stream) else { return };
        let Open { socket, begun_ns } = &mut **open;
        let begun_ns = &mut begun_ns[usize::from(of_client)];
        if socket.is_idle(of_client) {
            *begun_ns = context.now_ns;
        }
        // Streams lie between each other, so each has a beginning of its own.
        let before_ns = std::mem::replace(&mut context.begun_ns, *begun_ns);
        socket.feed(of_client, bytes, context);
        *begun_ns = std::mem::replace(&mut context.begun_ns, before_ns);
        if socket.is_over() {
            self.0.remove(&stream);
        }
    }

    /// Bytes of a stream are missing, nobody knows how many: where its frames begin is lost.
    pub fn gap<O: Outlet>(&mut self, stream: StreamId, of_client: bool, context: &mut Context<'_, O>) {
        if let Some(Tunnel::Open(mut open)) = self.0.remove(&stream) {
            open.socket.gap(of_client, u64::MAX, context);
        }
    }

    /// The stream is over: `unanswered` is said of responses that never began, `answered` of others.
    pub fn end<O: Outlet>(
        &mut self,
        stream: StreamId,
        unanswered: Ended,
        answered: Ended,
        context: &mut Context<'_, O>,
    ) {
        if let Some(Tunnel::Open(mut open)) = self.0.remove(&stream) {
            open.socket.close(unanswered, answered, context);
        }
    }

    /// All streams are over.
    pub fn end_all<O: Outlet>(&mut self, unanswered: Ended, answered: Ended, context: &mut Context<'_, O>) {
        while let Some((&stream, _)) = self.0.first_key_value() {
            self.end(stream, unanswered, answered, context);
        }
    }

    /// Exchanges wait.
    pub fn has_pending(&self) -> bool {
        self.0.values().any(|tunnel| matches!(tunnel, Tunnel::Open(open) if open.socket.has_pending()))
    }
}

/// Exchanges are numbered by connection: a tunnel's come behind as many as a connection has streams.
fn first_sequence(stream: StreamId) -> u64 {
    u64::from(stream.0) << 32
}
