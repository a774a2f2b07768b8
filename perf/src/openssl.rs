//! The system's libssl, through its C API: two ends of a connection in one process, joined by memory.

use std::{
    ffi::{CStr, CString, c_char, c_int, c_long, c_void},
    path::Path,
    ptr,
};

use anyhow::{Context as _, bail, ensure};
use libloading::Library;

/// Declares the functions that are used, each with its type, and loads them by name.
macro_rules! functions {
    ($struct:ident { $($field:ident = $name:literal: fn($($arg:ty),*) $(-> $ret:ty)?;)* }) => {
        struct $struct { $($field: unsafe extern "C" fn($($arg),*) $(-> $ret)?,)* }

        #[expect(unsafe_code, reason = "symbols of a C library")]
        impl $struct {
            fn load(library: &Library) -> anyhow::Result<Self> {
                // SAFETY: the types are those of the manual pages of OpenSSL 1.1.1 to 3, and the library
                // outlives the pointers (see `Tls`).
                Ok(Self { $($field: unsafe { *library.get(concat!($name, "\0").as_bytes())? },)* })
            }
        }
    };
}

functions!(Api {
    client_method = "TLS_client_method": fn() -> *const c_void;
    server_method = "TLS_server_method": fn() -> *const c_void;
    ctx_new = "SSL_CTX_new": fn(*const c_void) -> *mut c_void;
    ctx_free = "SSL_CTX_free": fn(*mut c_void);
    use_certificate = "SSL_CTX_use_certificate_file": fn(*mut c_void, *const c_char, c_int) -> c_int;
    use_key = "SSL_CTX_use_PrivateKey_file": fn(*mut c_void, *const c_char, c_int) -> c_int;
    new = "SSL_new": fn(*mut c_void) -> *mut c_void;
    free = "SSL_free": fn(*mut c_void);
    set_bio = "SSL_set_bio": fn(*mut c_void, *mut c_void, *mut c_void);
    set_connect = "SSL_set_connect_state": fn(*mut c_void);
    set_accept = "SSL_set_accept_state": fn(*mut c_void);
    do_handshake = "SSL_do_handshake": fn(*mut c_void) -> c_int;
    write = "SSL_write": fn(*mut c_void, *const c_void, c_int) -> c_int;
    read = "SSL_read": fn(*mut c_void, *mut c_void, c_int) -> c_int;
    set_fd = "SSL_set_fd": fn(*mut c_void, c_int) -> c_int;
    error = "SSL_get_error": fn(*const c_void, c_int) -> c_int;
    ctx_ctrl = "SSL_CTX_ctrl": fn(*mut c_void, c_int, c_long, *mut c_void) -> c_long;
});

functions!(Bio {
    pair = "BIO_new_bio_pair": fn(*mut *mut c_void, usize, *mut *mut c_void, usize) -> c_int;
});

/// SSL_CTRL_MODE, with SSL_MODE_ENABLE_PARTIAL_WRITE and SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER
/// (SSL_CTX_set_mode(3)), as servers that never block use them.
const CTRL_MODE: c_int = 33;
const MODES_OF_SERVERS: c_long = 1 | 2;
/// What SSL_CTX_use_certificate_file(3) calls SSL_FILETYPE_PEM.
const PEM: c_int = 1;
/// Room for the largest payload with TLS's overhead.
const BIO_BYTES: usize = 4 << 20;

/// A connection with itself.
pub struct Tls {
    api: Api,
    client_ctx: *mut c_void,
    server_ctx: *mut c_void,
    client: *mut c_void,
    server: *mut c_void,
    /// Unloaded last, after the objects above are freed.
    _libraries: [Library; 2],
}

#[expect(unsafe_code, reason = "a C library; each object is made, used and freed by one thread")]
impl Tls {
    /// Makes both ends and shakes hands. `folder` holds `cert.pem` and `key.pem`.
    pub fn connect(folder: &Path) -> anyhow::Result<Self> {
        // SAFETY: the system's libraries have no surprising initialisers.
        let libraries = unsafe { [Library::new("libcrypto.so.3")?, Library::new("libssl.so.3")?] };
        let (bio, api) = (Bio::load(&libraries[0])?, Api::load(&libraries[1])?);
        let path = |name: &str| CString::new(folder.join(name).into_os_string().into_encoded_bytes());
        let (certificate, key) = (path("cert.pem")?, path("key.pem")?);
        // SAFETY: every function gets what its manual page asks for; failures are checked.
        unsafe {
            let client_ctx = (api.ctx_new)((api.client_method)());
            let server_ctx = (api.ctx_new)((api.server_method)());
            ensure!(!client_ctx.is_null() && !server_ctx.is_null(), "no SSL context");
            let certified = (api.use_certificate)(server_ctx, certificate.as_ptr(), PEM) == 1
                && (api.use_key)(server_ctx, key.as_ptr(), PEM) == 1;
            ensure!(certified, "the certificate is not taken");
            let (client, server) = ((api.new)(client_ctx), (api.new)(server_ctx));
            let (mut near, mut far) = (ptr::null_mut(), ptr::null_mut());
            ensure!((bio.pair)(&mut near, BIO_BYTES, &mut far, BIO_BYTES) == 1, "no BIO pair");
            (api.set_bio)(client, near, near);
            (api.set_bio)(server, far, far);
            (api.set_connect)(client);
            (api.set_accept)(server);
            let tls = Self { api, client_ctx, server_ctx, client, server, _libraries: libraries };
            for _ in 0..16 {
                let done = [(tls.api.do_handshake)(client), (tls.api.do_handshake)(server)];
                if done == [1, 1] {
                    return Ok(tls);
                }
            }
        }
        bail!("the handshake doesn't come to an end")
    }

    /// Writes all of `bytes` at the client's end.
    pub fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        // SAFETY: the object lives, and the buffer is as long as said.
        let written = unsafe { (self.api.write)(self.client, bytes.as_ptr().cast(), c_int::try_from(bytes.len())?) };
        ensure!(written as usize == bytes.len(), "SSL_write returned {written}");
        Ok(())
    }

    /// Reads at the server's end until `bytes` is full; returns how many calls that took.
    pub fn read(&mut self, bytes: &mut [u8]) -> anyhow::Result<u32> {
        let (mut at, mut calls) = (0, 0);
        while at < bytes.len() {
            let rest = &mut bytes[at..];
            // SAFETY: as above.
            let read = unsafe { (self.api.read)(self.server, rest.as_mut_ptr().cast(), c_int::try_from(rest.len())?) };
            ensure!(read > 0, "SSL_read returned {read}");
            at += read as usize;
            calls += 1;
        }
        Ok(calls)
    }
}

#[expect(unsafe_code, reason = "a C library")]
impl Drop for Tls {
    fn drop(&mut self) {
        // SAFETY: each was made by `connect` and is freed once; SSL_free frees its BIO.
        unsafe {
            (self.api.free)(self.client);
            (self.api.free)(self.server);
            (self.api.ctx_free)(self.client_ctx);
            (self.api.ctx_free)(self.server_ctx);
        }
    }
}

/// What a server makes its sessions of. It lives as long as the process.
pub struct Server {
    api: Api,
    ctx: *mut c_void,
    _libraries: [Library; 2],
}

/// What became of a call that must not block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// So many bytes went, or the handshake is done.
    Bytes(usize),
    /// The socket has to become readable first.
    WantRead,
    /// The socket has to become writable first.
    WantWrite,
    /// The connection is over.
    Over,
}

#[expect(unsafe_code, reason = "a C library; one thread makes, uses and frees each object")]
impl Server {
    /// Loads the system's library. `folder` holds `cert.pem` and `key.pem`.
    pub fn load(folder: &Path) -> anyhow::Result<Self> {
        // SAFETY: the system's libraries have no surprising initialisers.
        let libraries = unsafe { [Library::new("libcrypto.so.3")?, Library::new("libssl.so.3")?] };
        let api = Api::load(&libraries[1])?;
        let path = |name: &str| CString::new(folder.join(name).into_os_string().into_encoded_bytes());
        let (certificate, key) = (path("cert.pem")?, path("key.pem")?);
        // SAFETY: every function gets what its manual page asks for; failures are checked.
        let ctx = unsafe {
            let ctx = (api.ctx_new)((api.server_method)());
            ensure!(!ctx.is_null(), "no SSL context");
            let certified = (api.use_certificate)(ctx, certificate.as_ptr(), PEM) == 1
                && (api.use_key)(ctx, key.as_ptr(), PEM) == 1;
            ensure!(certified, "the certificate is not taken");
            (api.ctx_ctrl)(ctx, CTRL_MODE, MODES_OF_SERVERS, ptr::null_mut());
            ctx
        };
        Ok(Self { api, ctx, _libraries: libraries })
    }

    /// A session on a connected socket that doesn't block, which has to stay open as long.
    pub fn session(&self, fd: c_int) -> Option<Session<'_>> {
        // SAFETY: the context lives; a session that can't be made is null.
        unsafe {
            let ssl = (self.api.new)(self.ctx);
            if ssl.is_null() || (self.api.set_fd)(ssl, fd) != 1 {
                return None;
            }
            (self.api.set_accept)(ssl);
            Some(Session { api: &self.api, ssl })
        }
    }
}

/// One connection of a server.
pub struct Session<'server> {
    api: &'server Api,
    ssl: *mut c_void,
}

#[expect(unsafe_code, reason = "a C library; one thread makes, uses and frees each object")]
impl Session<'_> {
    /// Goes on with the handshake.
    pub fn handshake(&mut self) -> Moved {
        // SAFETY: the object lives.
        let returned = unsafe { (self.api.do_handshake)(self.ssl) };
        self.moved(returned)
    }

    /// Reads what is there into `buffer`.
    pub fn read(&mut self, buffer: &mut [u8]) -> Moved {
        let len = c_int::try_from(buffer.len()).unwrap_or(c_int::MAX);
        // SAFETY: the object lives, and the buffer is at least as long as said.
        let returned = unsafe { (self.api.read)(self.ssl, buffer.as_mut_ptr().cast(), len) };
        self.moved(returned)
    }

    /// Writes as much of `bytes`, which are not empty, as goes.
    pub fn write(&mut self, bytes: &[u8]) -> Moved {
        let len = c_int::try_from(bytes.len()).unwrap_or(c_int::MAX);
        // SAFETY: as above.
        let returned = unsafe { (self.api.write)(self.ssl, bytes.as_ptr().cast(), len) };
        self.moved(returned)
    }

    fn moved(&mut self, returned: c_int) -> Moved {
        if returned > 0 {
            return Moved::Bytes(returned as usize);
        }
        // SAFETY: the object lives, and this is the thread of its last call. 2 and 3 are WANT_READ and
        // WANT_WRITE, SSL_get_error(3).
        match unsafe { (self.api.error)(self.ssl, returned) } {
            2 => Moved::WantRead,
            3 => Moved::WantWrite,
            _ => Moved::Over,
        }
    }
}

#[expect(unsafe_code, reason = "a C library")]
impl Drop for Session<'_> {
    fn drop(&mut self) {
        // SAFETY: made by `session`, freed once.
        unsafe { (self.api.free)(self.ssl) };
    }
}

/// Maps the library, as long as what is returned lives.
#[expect(unsafe_code, reason = "a C library")]
pub fn map() -> anyhow::Result<Library> {
    // SAFETY: the system's libraries have no surprising initialisers.
    Ok(unsafe { Library::new("libssl.so.3")? })
}

/// The version that the library reports, for the record.
#[expect(unsafe_code, reason = "a C library")]
pub fn version() -> anyhow::Result<String> {
    // SAFETY: OpenSSL_version(3) takes a number and returns a static string.
    unsafe {
        let library = Library::new("libcrypto.so.3").context("this machine has no libcrypto.so.3")?;
        let version: libloading::Symbol<'_, unsafe extern "C" fn(c_int) -> *const c_char> =
            library.get(b"OpenSSL_version\0")?;
        Ok(CStr::from_ptr(version(0)).to_string_lossy().into_owned())
    }
}

const _: () = assert!(size_of::<c_long>() == 8, "the sizes above are those of 64-bit machines");
