//! Every bound of the engine, in one place.
//!
//! Memory of one worker beyond its rings, at the most:
//!   connections      CONNECTIONS_MAX x about 1 KiB of state               =  16 MiB
//!   heads            bounded by REASSEMBLY_BYTES_MAX below
//!   bodies           REASSEMBLY_BYTES_MAX (heads, partial lines, bodies)  = 256 MiB
//!   what repeats     JSON_FORMS_MAX and 2 x HEADS_KNOWN_MAX of up to 4 KiB
//!                    each with the places in them, DESTINATIONS_MAX       = 0.5 MiB
//!   exchanges queued EXCHANGE_QUEUE_MAX x one arena of a few KiB          =  32 MiB
//!
//! Memory of the encoder, at the most:
//!   requests waiting EXPORT_WAITING_BYTES_MAX                             =  64 MiB
//!   request in work  one being filled, one being compressed and sent; up to
//!                    2 x EXPORT_REQUEST_BYTES_MAX with content, else 8 MiB = 128 MiB
//!   buffers kept     EXPORT_BUFFERS_KEPT_MAX x EXPORT_BUFFER_KEPT_BYTES_MAX = 32 MiB
//!   spool            1 MiB of buffers, and the batch whose turn it is, up to
//!                    EXPORT_REQUEST_BYTES_MAX with content, else 4 MiB    =  65 MiB
//!   lines            (OUTPUT_CHUNKS_MAX + 1) x OUTPUT_PENDING_BYTES_MAX   =  20 MiB
//!   response         EXPORT_RESPONSE_BYTES_MAX                            =   4 MiB
//!   metrics          METRIC_SETS_MAX x up to 8 KiB of attributes and
//!                    4 histograms of about 200 bytes                      =  18 MiB
//!   their requests   at most two collections on their way, each as large
//!                    as what it tells; 6 MiB with names of usual length

/// Connections that one worker follows at once; the one idle for longest goes first.
pub const CONNECTIONS_MAX: usize = 16_384;

/// Requests of one connection that wait for their responses (HTTP/1.1 pipelining).
pub const PIPELINE_MAX: usize = 128;

/// A start line and its fields, RFC 9112 section 2.1. Servers refuse far less (8 to 64 KiB).
pub const HEAD_BYTES_MAX: usize = 256 * 1024;

/// What a decoder keeps of the buffer in which it put a head together.
pub const HEAD_BUFFER_KEPT_BYTES: usize = 4 * 1024;

/// Field lines of one head.
pub const HEAD_FIELDS_MAX: usize = 256;

/// Heads of each side that a worker keeps for comparison, and the bytes of one.
pub const HEADS_KNOWN_MAX: usize = 16;
/// See [`HEADS_KNOWN_MAX`].
pub const HEAD_KNOWN_BYTES_MAX: usize = 4 * 1024;
/// Heads that one is compared with at the most.
pub const HEADS_TRIED_MAX: usize = 3;

/// Messages under way at once in one direction of an HTTP/2 connection; servers allow 100 to 250.
pub const STREAMS_MAX: usize = 1024;

/// The dynamic table of an HPACK decoder. The default is 4 KiB; browsers and proxies offer 64 KiB.
pub const HPACK_TABLE_BYTES_MAX: usize = 64 * 1024;

/// One message's body after its codings are removed, when it has to be whole to be parsed.
pub const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What a content coding may expand to, beyond which a body counts as a bomb.
pub const DECODED_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Content codings stacked on one body. Two are already unheard of.
pub const CODINGS_MAX: usize = 2;

/// The window that a zstd body may ask for, as a power of two: RFC 9659 sets 8 MiB for HTTP.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// Codecs of one worker that wait for the next coded body.
pub const IDLE_CODECS_MAX: usize = 64;

/// One line or event of a stream that arrives in pieces.
pub const STREAM_EVENT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What a stream's decoder keeps of the buffer in which it put a line or event together.
pub const STREAM_BUFFER_KEPT_BYTES: usize = 16 * 1024;

/// An event of a stream that the next ones are compared with. Nearly all events are shorter.
pub const TEMPLATE_BYTES_MAX: usize = 1024;

/// Places where such events may differ: the answer's piece, padding, numbers.
pub const TEMPLATE_HOLES_MAX: usize = 8;

/// Unfinished heads, lines and bodies of one worker, together.
pub const REASSEMBLY_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Finished exchanges on their way to the encoder.
pub const EXCHANGE_QUEUE_MAX: usize = 8_192;

/// An arena that grew beyond this is not kept for reuse.
pub const ARENA_KEPT_BYTES_MAX: usize = 256 * 1024;

/// Encoded export requests that wait for the collector, together, before compression.
pub const EXPORT_WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;

/// An export request takes no further span that would bring it past this.
pub const EXPORT_REQUEST_BYTES_TARGET: usize = 4 * 1024 * 1024;

/// An export request of a single span may have up to this, the bound that OTLP/HTTP recommends.
pub const EXPORT_REQUEST_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A collector's response, after its content coding is removed.
pub const EXPORT_RESPONSE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Buffers of sent requests that are kept for the next ones.
pub const EXPORT_BUFFERS_KEPT_MAX: usize = 4;

/// A buffer that grew beyond this is not kept.
pub const EXPORT_BUFFER_KEPT_BYTES_MAX: usize = 2 * EXPORT_REQUEST_BYTES_TARGET;

/// Providers of which own telemetry tells the spans apart.
pub const PROVIDERS_MAX: usize = 64;

/// Connections of those who scrape own telemetry.
pub const SCRAPES_MAX: usize = 16;

/// What the spool may take of the disk by default.
pub const SPOOL_BYTES_DEFAULT: u64 = 512 * 1024 * 1024;

/// The least that it can be given.
pub const SPOOL_BYTES_MIN: u64 = 1024 * 1024;

/// A file of the spool has a sixteenth of what the spool may take, and at least this.
pub const SPOOL_SEGMENT_BYTES_MIN: u64 = 64 * 1024;

/// Sets of attributes that metrics tell apart, the one for all others included. This is the default
/// limit of the OpenTelemetry metrics SDK specification.
pub const METRIC_SETS_MAX: usize = 2000;

/// Lines of text that wait for a slow reader; then they are dropped.
pub const OUTPUT_PENDING_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Pieces of text on their way to a slow reader.
pub const OUTPUT_CHUNKS_MAX: usize = 4;

/// The JSON text of one content attribute; longer is cut, and stays valid JSON.
pub const CONTENT_BYTES_DEFAULT: usize = 1024 * 1024;

/// Any other string of an exchange (model, id, error code, stop sequence).
pub const TEXT_BYTES_MAX: usize = 1024;

/// Elements of a list attribute (finish reasons, stop sequences).
pub const LIST_MAX: usize = 128;

/// All strings that one exchange keeps in its arena, content aside.
pub const TEXTS_BYTES_MAX: usize = 64 * 1024;

/// Commas, colons and opening brackets of one JSON document. Each costs up to 32 bytes while the
/// document is read, so that this many cost 128 MiB; what has more is not read.
pub const JSON_STRUCTURALS_MAX: usize = 4 * 1024 * 1024;

/// Buffers for JSON documents up to this size stay with their worker for the next one.
pub const JSON_KEPT_BYTES_MAX: usize = 1024 * 1024;

/// Destinations that a worker remembers, and the bytes of method, target and host of one.
pub const DESTINATIONS_MAX: usize = 16;
/// See [`DESTINATIONS_MAX`].
pub const DESTINATION_BYTES_MAX: usize = 1024;

/// Forms of documents that a worker knows, the values of one, and its bytes without long values.
pub const JSON_FORMS_MAX: usize = 16;
/// See [`JSON_FORMS_MAX`].
pub const JSON_FORM_VALUES_MAX: usize = 128;
/// See [`JSON_FORMS_MAX`].
pub const JSON_FORM_BYTES_MAX: usize = 4 * 1024;
/// Forms that a document is compared with at the most.
pub const JSON_FORMS_TRIED_MAX: usize = 3;

const _: () = assert!(HEAD_BYTES_MAX < REASSEMBLY_BYTES_MAX);
const _: () = assert!(BODY_BYTES_MAX <= REASSEMBLY_BYTES_MAX);
const _: () = assert!(STREAM_EVENT_BYTES_MAX <= BODY_BYTES_MAX);
const _: () = assert!(BODY_BYTES_MAX <= DECODED_BYTES_MAX);
const _: () = assert!(EXPORT_REQUEST_BYTES_TARGET <= EXPORT_REQUEST_BYTES_MAX);
const _: () = assert!(EXPORT_REQUEST_BYTES_MAX <= EXPORT_WAITING_BYTES_MAX);
const _: () = assert!(HEAD_BYTES_MAX <= u32::MAX as usize);

/// Arenas that a worker keeps for the next exchanges.
pub const ARENAS_KEPT_MAX: usize = 1_024;

/// Bodies' buffers that a worker keeps, each of at most [`BODY_BUFFER_KEPT_BYTES_MAX`].
pub const BODY_BUFFERS_KEPT_MAX: usize = 32;

/// Responses under way on one WebSocket.
pub const SOCKET_TURNS_MAX: usize = 64;

/// An event of a WebSocket that is kept because its effect lasts, as the settings of a session.
pub const SOCKET_SETTINGS_BYTES_MAX: usize = 256 * 1024;

/// Messages in a row that are no events, after which a WebSocket is taken to carry something else.
pub const SOCKET_STRANGE_MAX: u32 = 16;

/// A body's buffer that grew beyond this is not kept for reuse.
pub const BODY_BUFFER_KEPT_BYTES_MAX: usize = 1024 * 1024;
