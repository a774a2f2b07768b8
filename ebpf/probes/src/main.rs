//! The kernel side: uprobes on TLS libraries that copy plaintext into per-CPU rings.
//!
//! A call's arguments are stashed on entry, and what was really transferred is copied on return.
//! The programs are maps, bounds and hand-off; what can be decided without the kernel lives in
//! `agentsight-abi`, where the host tests it.
#![feature(asm_experimental_arch)]
#![no_std]
#![no_main]

mod carrier;
mod conn;
mod emit;
mod gnutls;
mod go;
mod helpers;
mod maps;
mod nspr;
mod pid;
mod process;
mod rustls;
mod select;
mod sock;
mod socket;
mod source;
mod ssl;

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}
