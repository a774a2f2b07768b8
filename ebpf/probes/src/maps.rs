//! Every map, and the counters.

use core::arch::asm;

use agentsight_abi::{
    CALLS_MAX, CONNS_MAX, Call, CallKey, Config, Conn, ConnKey, DropCause, FILTER_MAX, RINGS_MAX, Tally, Total,
    carrier::{THREADS_MAX, Thread},
    conn_id,
    socket::{BATCHES_MAX, Batch, SOCKETS_MAX, Socket, SocketLayout},
    tally::TALLIES,
};
use aya_ebpf::{
    bindings::BPF_F_NO_COMMON_LRU,
    btf_maps::{Array, ArrayOfMaps, HashMap, LruHashMap, PerCpuArray, RingBuf},
    helpers::bpf_get_current_pid_tgid,
    macros::btf_map,
};

/// One ring of the size that the engine chooses; it makes one for each possible CPU.
pub type Ring = RingBuf<(), 4096>;

#[btf_map]
pub static RINGS: ArrayOfMaps<Ring, RINGS_MAX> = ArrayOfMaps::new();

/// The step of `pressure` that each ring is at.
#[btf_map]
pub static PRESSURE: Array<u32, RINGS_MAX> = Array::new();

#[btf_map]
pub static CONNS: LruHashMap<ConnKey, Conn, CONNS_MAX> = LruHashMap::new();

/// Calls between entry and return. Least recently used, because a thread that dies inside a call
/// never returns from it.
#[btf_map]
pub static CALLS: LruHashMap<CallKey, Call, CALLS_MAX, { BPF_F_NO_COMMON_LRU as usize }> = LruHashMap::new();

/// Sockets by the address of their `struct sock`.
#[btf_map]
pub static SOCKETS: LruHashMap<u64, Socket, SOCKETS_MAX> = LruHashMap::new();

/// Threads (`bpf_get_current_pid_tgid`) that use TLS on connections whose socket isn't known yet.
#[btf_map]
pub static THREADS: LruHashMap<u64, Thread, THREADS_MAX> = LruHashMap::new();

/// Threads inside a call for several messages on a socket.
#[btf_map]
pub static BATCHES: LruHashMap<u64, Batch, BATCHES_MAX> = LruHashMap::new();

/// Connections by id that the engine gave up.
#[btf_map]
pub static VERDICTS: LruHashMap<u64, u32, CONNS_MAX> = LruHashMap::new();

#[btf_map]
pub static FILTER_TGIDS: HashMap<u32, u32, FILTER_MAX> = HashMap::new();

#[btf_map]
pub static FILTER_UIDS: HashMap<u32, u32, FILTER_MAX> = HashMap::new();

#[btf_map]
pub static FILTER_COMMS: HashMap<[u8; 16], u32, FILTER_MAX> = HashMap::new();

#[btf_map]
pub static FILTER_CGROUPS: HashMap<u64, u32, FILTER_MAX> = HashMap::new();

#[btf_map]
static TALLY: PerCpuArray<Tally, { TALLIES }> = PerCpuArray::new();

/// How many connections this CPU has seen first.
#[btf_map]
static CONN_COUNT: PerCpuArray<u64, 1> = PerCpuArray::new();

#[unsafe(no_mangle)]
static CONFIG: Config = Config { engine_tgid: 0, filters: 0, fork_child_pid_offset: 0, unwanted: 0 };

#[unsafe(no_mangle)]
static LAYOUT: SocketLayout = SocketLayout {
    enabled: 0,
    family: 0,
    peer_port: 0,
    local_port: 0,
    peer_v4: 0,
    local_v4: 0,
    peer_v6: 0,
    local_v6: 0,
    kind: 0,
    shutdown: 0,
    socket: 0,
    socket_inode: 0,
    unix_addr: 0,
    unix_peer: 0,
    unix_len: 0,
    unix_path: 0,
    files: 0,
    table: 0,
    table_len: 0,
    table_files: 0,
    private_data: 0,
    pad: 0,
};

/// The offset that the engine set before loading in the layout's field at `field`.
#[inline(always)]
pub fn offset(field: usize) -> u64 {
    // SAFETY: a plain read of one field; volatile, because the loader replaces what the compiler sees.
    (unsafe { core::ptr::read_volatile((&raw const LAYOUT).byte_add(field).cast::<u32>()) }) as u64
}

/// Sockets are looked at.
#[inline(always)]
pub fn sees_sockets() -> bool {
    offset(core::mem::offset_of!(SocketLayout, enabled)) != 0
}

/// What the engine set before loading.
#[inline(always)]
pub fn config() -> Config {
    // SAFETY: a plain read; volatile, because the loader replaces what the compiler sees here.
    unsafe { core::ptr::read_volatile(&raw const CONFIG) }
}

#[inline(always)]
pub fn count_drop(cause: DropCause, bytes: u64) {
    add(cause.index(), bytes);
}

#[inline(always)]
pub fn count(total: Total, bytes: u64) {
    add(total.index(), bytes);
}

#[inline(always)]
fn add(index: u32, bytes: u64) {
    if let Some(tally) = TALLY.get_ptr_mut(index) {
        // SAFETY: a slot of this CPU, which the lookup found; programs of one CPU don't interleave
        // inside a few instructions in a way that could lose more than one count.
        unsafe {
            (*tally).events += 1;
            (*tally).bytes += bytes;
        }
    }
}

/// A number for a connection that the calling thread has seen first on `cpu`, unique and never 0.
#[inline(always)]
pub fn next_conn_id(cpu: u32) -> u64 {
    let Some(count) = CONN_COUNT.get_ptr_mut(0) else { return 0 };
    // SAFETY: this CPU's slot, which the lookup found. Another thread may come in between, but nothing of
    // this one, so that the two don't get the same number though they may read the same count. Counting
    // and reading in one instruction would need Linux 5.12.
    let count = unsafe {
        asm!("lock *(u64 *)({count} + 0) += {one}", count = in(reg) count, one = in(reg) 1_u64, options(nostack));
        core::ptr::read_volatile(count)
    };
    conn_id(bpf_get_current_pid_tgid() as u32, cpu, count)
}
