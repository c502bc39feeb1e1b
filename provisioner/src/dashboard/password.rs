//! The name and the password that visitors give, by HTTP basic authentication (RFC 7617).

use std::io;
use std::path::Path;

use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest as _, Sha256};

use crate::error::Error;
use crate::private_file;

/// The answer that makes a browser ask for both.
const CHALLENGE: &str = "Basic realm=\"event counts\", charset=\"UTF-8\"";

/// A name and a password: `user:password`.
#[derive(Clone)]
pub(crate) struct Password(String);

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password")
    }
}

impl Password {
    /// Reads the single line of a file that only its owner may read.
    ///
    /// # Errors
    /// The file cannot be read, others may read it, or it has no such line.
    pub(crate) fn read(file: &Path) -> Result<Self, Error> {
        let read = private_file::read(file).and_then(|text| {
            Self::of(&text).ok_or_else(|| io::Error::other("it is not one line with a name, a colon and a password"))
        });
        let help = "write the line user:password into a file with the permissions 0600";
        read.map_err(|source| Error::io(format_args!("read the password in {}", file.display()), help, &source))
    }

    fn of(text: &str) -> Option<Self> {
        let line = text.strip_suffix('\n').unwrap_or(text);
        let line = line.strip_suffix('\r').unwrap_or(line);
        let (name, password) = line.split_once(':')?;
        let is_complete = !name.is_empty() && !password.is_empty() && !line.contains(char::is_control);
        is_complete.then(|| Self(line.to_owned()))
    }

    /// Returns the response to a request without the password; `None` if the request has it.
    pub(super) fn check(&self, headers: &HeaderMap) -> Option<Response> {
        let mut given = headers.get_all(AUTHORIZATION).into_iter().filter_map(|value| {
            let (scheme, credentials) = value.to_str().ok()?.split_once(' ')?;
            let credentials = BASE64.decode(credentials.trim()).ok()?;
            scheme.eq_ignore_ascii_case("basic").then_some(credentials)
        });
        if given.any(|credentials| self.is(&credentials)) {
            return None;
        }
        let text = "The dashboard needs a name and a password.\n";
        Some((StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, CHALLENGE)], text).into_response())
    }

    /// Compares digests, which takes the same time for every wrong password.
    fn is(&self, other: &[u8]) -> bool {
        Sha256::digest(&self.0) == Sha256::digest(other)
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn status(password: &Password, authorization: &str) -> Option<u16> {
        let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_str(authorization).expect("a value"))]);
        password.check(&headers).map(|response| response.status().as_u16())
    }

    #[test]
    fn only_a_visitor_with_the_password_is_let_in() {
        let password = Password::of("counts:open: sesame\u{e9}\n").expect("a password");
        let right = BASE64.encode("counts:open: sesame\u{e9}");
        assert_eq!(status(&password, &format!("Basic {right}")), None);
        assert_eq!(status(&password, &format!("basic  {right}")), None);
        for wrong in [
            String::new(),
            right.clone(),
            format!("Bearer {right}"),
            format!("Basic {}", BASE64.encode("counts:open: sesame")),
            format!("Basic {}", BASE64.encode("counts:")),
            "Basic counts:open".to_owned(),
        ] {
            assert_eq!(status(&password, &wrong), Some(401), "{wrong}");
        }
        let response = password.check(&HeaderMap::new()).expect("a refusal");
        assert_eq!(response.headers()[WWW_AUTHENTICATE], CHALLENGE);
    }

    #[test]
    fn file_with_anything_but_one_line_of_both_is_refused() {
        for text in ["", "\n", "counts", ":sesame", "counts:", "counts:a\nother:b\n", "counts:a\tb", "counts:a\n\n"] {
            assert!(Password::of(text).is_none(), "{text:?}");
        }
        for text in ["counts:sesame", "counts:sesame\n", "counts:sesame\r\n"] {
            assert_eq!(Password::of(text).expect("a password").0, "counts:sesame");
        }
        let missing = Password::read(Path::new("no/such/file")).expect_err("an error").to_string();
        assert!(
            missing.contains("failed to read the password in no/such/file") && missing.contains("0600"),
            "{missing}"
        );
    }
}
