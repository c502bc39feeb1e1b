//! A new `pipeline.toml`: its text, and the checks of the answers that it is made of.

use toml::Value;

use super::check_all;

/// An answer that a new file is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    Name,
    Region,
    Bucket,
    Prefix,
    WorkspaceId,
    EventsPerMonth,
}

impl Field {
    /// Every field, in an order in which each proposal follows from the answers before it.
    pub(crate) const ALL: [Self; 6] =
        [Self::Name, Self::Region, Self::Bucket, Self::Prefix, Self::WorkspaceId, Self::EventsPerMonth];

    /// Returns whether a file is complete without it.
    pub(crate) fn is_optional(self) -> bool {
        matches!(self, Self::WorkspaceId | Self::EventsPerMonth)
    }
}

/// The reason why an answer cannot be used, and its correction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) why: String,
    pub(crate) help: String,
}

/// The answers, all of them valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewFile {
    name: String,
    region: String,
    bucket: String,
    prefix: String,
    workspace_id: Option<String>,
    events_per_month: Option<i64>,
}

impl Default for NewFile {
    fn default() -> Self {
        Self {
            name: "segment-events".to_owned(),
            region: "us-east-1".to_owned(),
            bucket: "acme-segment-events".to_owned(),
            prefix: "segment-logs/".to_owned(),
            workspace_id: None,
            events_per_month: None,
        }
    }
}

impl NewFile {
    /// Returns the answer that is proposed for a field; empty if there is none.
    pub(crate) fn proposal(&self, field: Field) -> &str {
        match field {
            Field::Name | Field::WorkspaceId | Field::EventsPerMonth => "",
            Field::Region => &self.region,
            Field::Bucket => &self.name,
            Field::Prefix => &self.prefix,
        }
    }

    /// Returns the file with one more answer, which is checked by the rules of the whole file.
    ///
    /// # Errors
    /// The first mistake in the file with this answer.
    pub(crate) fn with(&self, field: Field, answer: &str) -> Result<Self, Refused> {
        let (mut file, text) = (self.clone(), answer.to_owned());
        match field {
            Field::Name => file.name = text,
            Field::Region => file.region = text,
            Field::Bucket => file.bucket = text,
            Field::Prefix => file.prefix = text,
            Field::WorkspaceId => file.workspace_id = Some(text),
            Field::EventsPerMonth => file.events_per_month = Some(number(answer)?),
        }
        let Err(mistakes) = check_all("pipeline.toml", &file.text(), None) else { return Ok(file) };
        let first = mistakes.file.and_then(|errors| errors.found.into_iter().next());
        Err(match first {
            Some(first) if first.label.is_empty() => Refused { why: first.message, help: first.help },
            Some(first) => Refused { why: first.label, help: first.help },
            None => Refused { why: "not valid".to_owned(), help: "write another value".to_owned() },
        })
    }

    /// Returns the text of the file.
    pub(crate) fn text(&self) -> String {
        let line = |key: &str, value: &str| format!("{key} = {}", Value::from(value));
        let name = line("name", &self.name);
        let region = line("region", &self.region);
        let bucket = line("name", &self.bucket);
        let prefix = line("prefix", &self.prefix);
        let segment = match &self.workspace_id {
            Some(id) => format!("[segment]\n{}", line("workspace_id", id)),
            None => "# [segment]\n# workspace_id = \"abc123XYZ\"".to_owned(),
        };
        let estimate = match self.events_per_month {
            Some(events) => format!("[estimate]\nevents_per_month = {events}"),
            None => "# [estimate]\n# events_per_month = 10_000_000".to_owned(),
        };
        format!(
            r##"# One event pipeline: Segment's files in S3, counted per event and hour into DynamoDB by a Lambda function.
# `provisioner plan` shows the changes, `provisioner apply` makes them. A line behind a # shows a default or an example;
# `provisioner schema pipeline` describes every key.

[pipeline]
{name:<32} # names and owns everything below
{region}
# account = "123456789012"       # refuse to run in any other account

# [tags]                         # on every resource
# team = "analytics"

[bucket]
{bucket:<32} # global on AWS
# versioning = false
# expire_days = 90               # delete files after this time; by default never
# require_tls = true             # the bucket's policy denies plain HTTP

[notification]
{prefix:<32} # Segment writes below segment-logs/
suffix = ".gz"
# via = "queue"                  # batches from a queue; "function": one invocation for each object

[table]
billing = "on-demand"            # or {{ read = 5, write = 5 }} to stay in the free tier
# point_in_time_recovery = true
# deletion_protection = true

[function]
memory_mb = 256
timeout_seconds = 60
# architecture = "x86_64"        # or "arm64"
# log_retention_days = 30

[rollup]
count = ["track"]                # Segment message types; all but track are counted under the name of their type
# sum = ["properties.revenue"]   # fields whose numbers are summed for each event and hour
# by = ["properties.plan"]       # fields by whose values each event is divided

# The role that Segment assumes to write into the bucket.
{segment}

# The volume for the cost estimate in plans.
{estimate}

# `--env NAME` (or PIPELINE_ENV) applies one of these overrides.
[environments.local]
bucket.require_tls = false       # a local AWS uses plain HTTP
"##
        )
    }
}

/// Parses a number, also with signs between its groups of digits.
fn number(text: &str) -> Result<i64, Refused> {
    let digits = text.replace(['_', ','], "");
    digits.parse().map_err(|_| Refused {
        why: format!("`{}` is not a whole number", text.escape_debug()),
        help: "write digits, such as 10000000".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn file_of(answers: &[(Field, &str)]) -> NewFile {
        let add = |file: NewFile, (field, answer): &(Field, &str)| file.with(*field, answer).expect("a valid answer");
        answers.iter().fold(NewFile::default(), add)
    }

    #[test]
    fn text_of_accepted_answers_is_a_valid_file() {
        let all = [
            (Field::Name, "events"),
            (Field::Region, "eu-central-1"),
            (Field::Bucket, "acme.events-2"),
            (Field::Prefix, "it's a \"b\\c\" {region} B\u{fc}cher/"),
            (Field::WorkspaceId, "abc123XYZ"),
            (Field::EventsPerMonth, "10_000,000"),
        ];
        let parsed = parse("pipeline.toml", &file_of(&all).text(), None).expect("a valid file");
        assert_eq!(parsed.name, "events");
        assert_eq!(parsed.region, "eu-central-1");
        assert_eq!(parsed.bucket.name, "acme.events-2");
        assert_eq!(parsed.notification.prefix, "it's a \"b\\c\" {region} B\u{fc}cher/");
        assert_eq!(parsed.segment_workspace_id.as_deref(), Some("abc123XYZ"));
        assert_eq!(parsed.estimate.map(|volume| volume.events_per_month), Some(10_000_000));
        for answers in [&[][..], &all[..1], &all[1..3]] {
            let text = file_of(answers).text();
            let parsed = parse("pipeline.toml", &text, None).expect("a valid file");
            assert!(parsed.segment_workspace_id.is_none() && parsed.estimate.is_none(), "{text}");
            assert!(!parse("pipeline.toml", &text, Some("local")).expect("a valid file").bucket.require_tls);
        }
    }

    #[test]
    fn commented_lines_are_valid_too() {
        let text = NewFile::default().text();
        let is_key = |line: &&str| line.contains(" = ") || line.starts_with('[');
        let lines = text.lines().map(|line| line.strip_prefix("# ").filter(is_key).unwrap_or(line));
        let text = lines.collect::<Vec<_>>().join("\n");
        let parsed = parse("pipeline.toml", &text, None).expect("a valid file");
        assert!(parsed.account.is_some() && parsed.segment_workspace_id.is_some() && !parsed.rollup.by.is_empty());
    }

    #[test]
    fn answer_that_the_file_may_not_have_is_refused_with_its_reason() {
        for (field, answer, why) in [
            (Field::Name, "", "0 characters"),
            (Field::Name, "Events", "`E`"),
            (Field::Name, "a\"b", "`\\\"`"),
            (Field::Name, "a\nb", "`\\n`"),
            (Field::Name, "a\u{7}b", "`\\u{7}`"),
            (Field::Name, "\u{e9}v\u{e9}nements", "`\\u{e9}`"),
            (Field::Region, "us-esat-1", "no AWS region"),
            (Field::Bucket, "acme_events", "`_`"),
            (Field::Bucket, "a\u{1b}[31m", "`\\u{1b}`"),
            (Field::Prefix, "/logs/", "slash"),
            (Field::Prefix, "logs/*", "wildcards"),
            (Field::Prefix, "a\u{9b}b/", "`\\u{9b}`"),
            (Field::WorkspaceId, "a", "1 characters"),
            (Field::WorkspaceId, "abc\"123", "`\\\"`"),
            (Field::WorkspaceId, "abc\r123", "`\\r`"),
            (Field::EventsPerMonth, "many", "not a whole number"),
            (Field::EventsPerMonth, "0", "0 a month"),
        ] {
            let refused = NewFile::default().with(field, answer).expect_err("a refusal");
            assert!(refused.why.contains(why) && !refused.help.is_empty(), "{answer:?}: {refused:?}");
        }
        let china = file_of(&[(Field::Region, "cn-north-1")]);
        let refused = china.with(Field::WorkspaceId, "abc123").expect_err("a refusal");
        assert!(refused.why.contains("partition"), "{refused:?}");
    }

    #[test]
    fn bucket_is_proposed_after_the_pipeline() {
        let file = file_of(&[(Field::Name, "visits")]);
        assert_eq!(file.proposal(Field::Bucket), "visits");
        assert_eq!((file.proposal(Field::Prefix), file.proposal(Field::WorkspaceId)), ("segment-logs/", ""));
    }
}
