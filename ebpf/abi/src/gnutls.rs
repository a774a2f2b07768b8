//! What GnuTLS's functions return.

/// Errors after which a session goes on as if nothing had been: GNUTLS_E_AGAIN, GNUTLS_E_INTERRUPTED,
/// GNUTLS_E_WARNING_ALERT_RECEIVED, GNUTLS_E_REHANDSHAKE, GNUTLS_E_HEARTBEAT_PONG_RECEIVED,
/// GNUTLS_E_HEARTBEAT_PING_RECEIVED and GNUTLS_E_REAUTH_REQUEST of gnutls/gnutls.h.
const GOES_ON: [i32; 7] = [-28, -52, -16, -37, -292, -293, -304];

/// Whether a read that returned `code`, which is no count of bytes, was the last one: 0 at the end of
/// what the peer sends, an error when the connection broke.
#[inline(always)]
pub fn is_end(code: i32) -> bool {
    let mut at = 0;
    while at < GOES_ON.len() {
        if GOES_ON[at] == code {
            return false;
        }
        at += 1;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_from_waiting() {
        // GNUTLS_E_PREMATURE_TERMINATION and GNUTLS_E_PULL_ERROR break a connection.
        for (code, expected) in [(0, true), (-28, false), (-52, false), (-110, true), (-54, true), (-304, false)] {
            assert_eq!(is_end(code), expected, "{code}");
        }
    }
}
