//! The token that keeps other users of the machine out: the printed address has it, and a browser that opened that address
//! keeps it in a cookie.

use axum::http::header::{COOKIE, LOCATION, SET_COOKIE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use sha2::{Digest as _, Sha256};

use crate::error::Error;

/// The parameter of the address, and the name of the cookie.
const NAME: &str = "token";

/// A random token.
#[derive(Clone)]
pub(crate) struct Token(String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

impl Token {
    /// Creates a token of 128 random bits.
    ///
    /// # Errors
    /// The operating system has no random numbers.
    pub(crate) fn random() -> Result<Self, Error> {
        let mut bytes = [0_u8; 16];
        getrandom::fill(&mut bytes).map_err(|error| Error::internal("create a token", error))?;
        Ok(Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect()))
    }

    /// Returns the query of an address with the token.
    pub(crate) fn query(&self, query: &str) -> String {
        format!("{NAME}={}&{query}", self.0)
    }

    /// Returns the response to a request without the token, or to one whose address has it; `None` if its cookie has it.
    pub(super) fn check(&self, headers: &HeaderMap, query: &str) -> Option<Response> {
        let (given, others): (Vec<_>, Vec<_>) =
            form_urlencoded::parse(query.as_bytes()).partition(|(name, _)| name == NAME);
        if given.iter().any(|(_, token)| self.is(token)) {
            // The address without the token: it may be shared, and is in the browser's history.
            let rest = form_urlencoded::Serializer::new(String::new()).extend_pairs(others).finish();
            let cookie = format!("{NAME}={}; HttpOnly; SameSite=Strict; Path=/", self.0);
            return Some(
                (StatusCode::SEE_OTHER, [(SET_COOKIE, cookie), (LOCATION, format!("?{rest}"))]).into_response(),
            );
        }
        let cookies = headers.get_all(COOKIE).into_iter().filter_map(|value| value.to_str().ok());
        let mut pairs = cookies.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
        if pairs.any(|(name, token)| name == NAME && self.is(token)) {
            return None;
        }
        let text = "The dashboard needs a token: open the address that the command printed.\n";
        Some((StatusCode::FORBIDDEN, text).into_response())
    }

    /// Compares digests, which takes the same time for every wrong token.
    fn is(&self, other: &str) -> bool {
        Sha256::digest(&self.0) == Sha256::digest(other)
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn status(token: &Token, cookie: &str, query: &str) -> Option<u16> {
        let headers = HeaderMap::from_iter([(COOKIE, HeaderValue::from_str(cookie).expect("a value"))]);
        token.check(&headers, query).map(|response| response.status().as_u16())
    }

    #[test]
    fn only_a_visitor_with_the_token_is_let_in() {
        let (token, other) = (Token::random().expect("a token"), Token::random().expect("a token"));
        assert_eq!(status(&token, "", ""), Some(403));
        assert_eq!(status(&token, "", &other.query("last=7d")), Some(403));
        assert_eq!(status(&token, &format!("{NAME}={}", other.0), ""), Some(403));
        assert_eq!(status(&token, "", &token.query("last=7d")), Some(303));
        assert_eq!(status(&token, &format!("a=b; {NAME}={}", token.0), "last=7d"), None);
    }

    #[test]
    fn redirect_drops_the_token_and_keeps_the_view() {
        let token = Token::random().expect("a token");
        let response = token.check(&HeaderMap::new(), &token.query("event=a%26b&last=7d")).expect("a redirect");
        assert_eq!(response.headers()[LOCATION], "?event=a%26b&last=7d");
    }
}
