//! The failure to get credentials, in words: the causes of the SDK's error, and the way to sign in.

use std::error::Error as StdError;
use std::path::PathBuf;

use crate::text::printable;

/// The causes that say nothing: each layer of the SDK adds one of them.
const EMPTY: [&str; 7] = [
    "dispatch failure",
    "other",
    "unhandled error",
    "service error",
    "an error occurred while loading credentials",
    "an error occurred while loading an access token",
    "failed to construct request",
];

/// Returns the causes of an error, the outermost first, one line each.
pub(super) fn causes(error: &(dyn StdError + 'static)) -> Vec<String> {
    let mut causes: Vec<String> = Vec::new();
    for cause in std::iter::successors(error.source(), |&cause| cause.source()) {
        for line in readable(&cause.to_string()).lines() {
            let line = printable(line.trim());
            let is_known = causes.iter().any(|earlier| earlier.contains(&line));
            if !line.is_empty() && !EMPTY.contains(&without_code(&line)) && !is_known {
                causes.push(line);
            }
        }
    }
    causes
}

/// Returns a line without the error code in parentheses at its end, which the next cause repeats.
fn without_code(line: &str) -> &str {
    line.split_once(" (").filter(|(_, code)| code.ends_with(')') && !code.contains(' ')).map_or(line, |(text, _)| text)
}

/// Replaces the Debug form of an answer, which some causes contain, by its code and message.
fn readable(cause: &str) -> String {
    let member = |name: &str| {
        let (_, rest) = cause.split_once(&format!("{name}: \""))?;
        // The value ends at the first quotation mark that is not escaped.
        let mut end = None;
        let mut escaped = false;
        for (i, c) in rest.char_indices() {
            if c == '"' && !escaped {
                end = Some(i);
                break;
            }
            escaped = c == '\\' && !escaped;
        }
        Some(rest.get(..end?)?.replace("\\\"", "\"").replace("\\n", "\n").replace("\\\\", "\\"))
    };
    match (cause.contains("Error {"), member("code"), member("message")) {
        (true, Some(code), Some(message)) => format!("{code}: {message}"),
        (true, code, message) => code.or(message).unwrap_or_else(|| cause.to_owned()),
        _ => cause.to_owned(),
    }
}

/// Returns the profile that the SDK uses.
pub(super) fn profile() -> String {
    let set = std::env::var("AWS_PROFILE").ok().filter(|name| !name.is_empty());
    set.map_or_else(|| "default".to_owned(), |name| printable(&name))
}

/// Returns the help text for these causes: the way to sign in that the profile uses.
pub(super) fn help(causes: &[String], profile: &str) -> String {
    help_for(causes, profile, &settings(profile))
}

fn help_for(causes: &[String], profile: &str, settings: &[String]) -> String {
    let has = |key: &str| settings.iter().any(|setting| setting == key);
    let says = |text: &str| causes.iter().any(|cause| cause.contains(text));
    if has("mfa_serial") {
        return format!(
            "the profile {profile} asks for an MFA code (mfa_serial), for which this program does not prompt: sign in with \
             the AWS CLI and pass its session on: eval \"$(aws configure export-credentials --profile {profile} --format \
             env)\"; or set credential_process in another profile"
        );
    }
    if has("login_session") || says("login session") {
        return format!("sign in: aws login --profile {profile}");
    }
    if has("sso_session") || has("sso_start_url") || says("SSO") {
        return format!("sign in: aws sso login --profile {profile}");
    }
    if says("was not defined") {
        return format!(
            "set AWS_PROFILE to a profile of ~/.aws/config, or add the profile {profile}: aws configure sso"
        );
    }
    "sign in, or set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY".to_owned()
}

/// Returns the names of the profile's settings in the configuration file of the AWS CLI; none if it cannot be read.
fn settings(profile: &str) -> Vec<String> {
    let of_home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".aws/config"));
    let path = std::env::var_os("AWS_CONFIG_FILE").map(PathBuf::from).or_else(of_home);
    let text = path.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
    settings_in(&text, profile)
}

fn settings_in(text: &str, profile: &str) -> Vec<String> {
    let mut is_wanted = false;
    let mut names = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            let section = section.trim();
            is_wanted = section.strip_prefix("profile ").unwrap_or(section).trim() == profile;
        } else if let Some((name, _)) = line.split_once('=').filter(|_| is_wanted) {
            names.push(name.trim().to_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;

    #[derive(Debug)]
    struct Layer(&'static str, Option<Box<Layer>>);

    impl fmt::Display for Layer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl StdError for Layer {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            self.1.as_deref().map(|layer| layer as &dyn StdError)
        }
    }

    fn chain(texts: &[&'static str]) -> Layer {
        let inner = texts.get(1..).filter(|rest| !rest.is_empty()).map(|rest| Box::new(chain(rest)));
        Layer(texts[0], inner)
    }

    #[test]
    fn causes_are_one_per_line_and_readable() {
        let loading = "an error occurred while loading credentials";
        let debug = r#"unhandled error (AccessDenied): Error { code: "AccessDenied", message: "User: \"a\" may not\nassume", aws_request_id: "1" }"#;
        let error = chain(&["dispatch failure", "other", loading, loading, "service error", debug]);
        assert_eq!(causes(&error), ["AccessDenied: User: \"a\" may not", "assume"]);
        let several =
            "no credentials found in chain. Attempted:\n  Environment: not set\n  Profile: `x` was not defined";
        let error = chain(&["dispatch failure", several]);
        assert_eq!(causes(&error).len(), 3);
    }

    #[test]
    fn help_names_the_way_in_which_the_profile_signs_in() {
        let file = "[default]\nregion = us-east-1\n[profile work]\nsso_session = corp\n[profile two]\nmfa_serial=arn\n\
                    [profile three]\nlogin_session = arn";
        let help = |profile: &str, cause: &str| help_for(&[cause.to_owned()], profile, &settings_in(file, profile));
        assert_eq!(help("work", ""), "sign in: aws sso login --profile work");
        assert!(help("two", "").contains("export-credentials --profile two"));
        assert_eq!(help("three", ""), "sign in: aws login --profile three");
        assert!(help("four", "profile `four` was not defined").contains("add the profile four"));
        assert!(help("default", "").starts_with("sign in, or set AWS_PROFILE"));
    }
}
