//! Keys in the listings of S3.

use aws_sdk_s3::types::EncodingType;
use percent_encoding::percent_decode_str;

/// Returns a key as it is, from a listing with `encoding-type=url`. Without that type, S3 writes characters that XML
/// cannot carry, and the listing cannot be parsed (S3 API reference, ListObjectVersions). The SDK does not decode.
pub(crate) fn decoded(encoding: Option<&EncodingType>, key: &str) -> String {
    match encoding {
        Some(EncodingType::Url) => decode(key),
        _ => key.to_owned(),
    }
}

/// Decodes a URL-encoded key, in which `+` is a space.
pub(crate) fn decode(key: &str) -> String {
    percent_decode_str(&key.replace('+', " ")).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_decoded_only_if_the_listing_is_encoded() {
        assert_eq!(decoded(Some(&EncodingType::Url), "a+b%2Bc%01%C3%A4"), "a b+c\u{1}\u{e4}");
        assert_eq!(decoded(None, "a+b%2B"), "a+b%2B");
    }
}
