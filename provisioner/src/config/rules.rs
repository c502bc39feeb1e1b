//! AWS's rules for names and values, each a pure function from a string to the violation, if any.
//!
//! Sources: the naming pages of the Amazon S3, IAM, Lambda, DynamoDB, Kinesis and SNS user guides, and the services' API
//! models.

/// A violation of a rule, and its correction.
pub(super) struct Violation {
    pub(super) why: String,
    pub(super) help: String,
}

pub(super) type Rule = Result<(), Violation>;

fn violation(why: impl Into<String>, help: impl Into<String>) -> Rule {
    Err(Violation { why: why.into(), help: help.into() })
}

/// A rule for texts, of which the JSON Schema has all but the last part.
#[derive(Debug, Clone, Copy)]
pub(super) struct Text {
    /// The least and the most characters.
    pub(super) length: (usize, usize),
    pub(super) letters: Letters,
    /// The rest of the rule, for texts of this length and of these letters.
    more: fn(&str) -> Rule,
}

/// Letters of which a text may consist.
#[derive(Debug, Clone, Copy)]
pub(super) struct Letters {
    /// Letters and ranges of letters, as a regular expression has them in brackets, a hyphen last; empty for all.
    pub(super) class: &'static str,
    /// The same in words.
    description: &'static str,
}

const ALL: Letters = Letters { class: "", description: "" };
const DIGITS: Letters = Letters { class: "0-9", description: "digits" };
const LOWER: Letters = Letters { class: "a-z0-9-", description: "lower-case letters, digits and hyphens" };
const LOWER_AND_DOTS: Letters =
    Letters { class: "a-z0-9.-", description: "lower-case letters, digits, hyphens and dots" };
const WORD: Letters = Letters { class: "A-Za-z0-9_-", description: "letters, digits, hyphens and underscores" };
const WORD_AND_DOTS: Letters =
    Letters { class: "A-Za-z0-9_.-", description: "letters, digits, hyphens, underscores and dots" };
const ROLE: Letters = Letters { class: "A-Za-z0-9_+=,.@-", description: "letters, digits and the signs _ + = , . @ -" };

const EXTERNAL_ID: Letters =
    Letters { class: "A-Za-z0-9_+=,.@:/-", description: "letters, digits and the signs _ + = , . @ : / -" };

/// A pipeline's name becomes part of the names of a bucket, tables, roles and a function, so it must obey the strictest
/// of their rules and leave room for a suffix.
pub(super) const PIPELINE_NAME: Text = text(2, 40, LOWER, pipeline_name);
pub(super) const BUCKET_NAME: Text = text(3, 63, LOWER_AND_DOTS, bucket_name);
pub(super) const ROLE_NAME: Text = text(1, 64, ROLE, accept);
pub(super) const FUNCTION_NAME: Text = text(1, 64, WORD, accept);
/// The name of an SQS standard queue.
pub(super) const QUEUE_NAME: Text = text(1, 80, WORD, accept);
pub(super) const TABLE_NAME: Text = text(3, 255, WORD_AND_DOTS, accept);
/// The name of a Kinesis data stream.
pub(super) const STREAM_NAME: Text = text(1, 128, WORD_AND_DOTS, accept);
pub(super) const REGION: Text = text(0, usize::MAX, ALL, region);
pub(super) const ACCOUNT: Text = text(12, 12, DIGITS, accept);
pub(super) const TAG_VALUE: Text = text(0, 256, ALL, tag_letters);
/// A notification filter: a plain string at the beginning or the end of a key.
pub(super) const FILTER: Text = text(1, 1024, ALL, filter);
/// An action, and a resource, of a policy statement.
pub(super) const ACTION: Text = text(0, usize::MAX, ALL, action);
pub(super) const RESOURCE: Text = text(0, usize::MAX, ALL, resource);
pub(super) const POLICY_ARN: Text = text(0, 2_048, ALL, policy_arn);
/// The id of a Segment workspace is the external id of sts:AssumeRole (IAM API reference).
pub(super) const WORKSPACE_ID: Text = text(2, 1224, EXTERNAL_ID, accept);
pub(super) const EMAIL: Text = text(3, 254, ALL, email);

const fn text(least: usize, most: usize, letters: Letters, more: fn(&str) -> Rule) -> Text {
    Text { length: (least, most), letters, more }
}

fn accept(_: &str) -> Rule {
    Ok(())
}

impl Text {
    /// Checks a text.
    pub(super) fn check(&self, text: &str) -> Rule {
        length(text, self.length.0, self.length.1)?;
        if !self.letters.class.is_empty() {
            letters(text, |c| self.letters.contain(c), self.letters.description)?;
        }
        (self.more)(text)
    }
}

impl Letters {
    /// Returns whether `c` is in the class.
    fn contain(self, c: char) -> bool {
        let mut rest = self.class;
        while let Some(first) = rest.chars().next() {
            rest = &rest[first.len_utf8()..];
            let last = rest.strip_prefix('-').and_then(|after| after.chars().next());
            if let Some(last) = last {
                rest = &rest[1 + last.len_utf8()..];
            }
            if (first..=last.unwrap_or(first)).contains(&c) {
                return true;
            }
        }
        false
    }
}

fn length(text: &str, least: usize, most: usize) -> Rule {
    let n = text.chars().count();
    if (least..=most).contains(&n) {
        return Ok(());
    }
    let help =
        if least == most { format!("write {least} characters") } else { format!("write {least} to {most} characters") };
    violation(format!("{n} characters"), help)
}

fn letters(text: &str, allowed: impl Fn(char) -> bool, description: &str) -> Rule {
    match text.chars().find(|c| !allowed(*c)) {
        Some(c) => {
            violation(format!("`{}` is not allowed here", c.escape_default()), format!("use only {description}"))
        }
        None => Ok(()),
    }
}

/// Checks the ends of a pipeline's name.
fn pipeline_name(name: &str) -> Rule {
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) || name.ends_with('-') {
        return violation("invalid first or last character", "begin with a letter, end with a letter or a digit");
    }
    Ok(())
}

/// Checks the name of a general purpose bucket.
fn bucket_name(name: &str) -> Rule {
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if !name.starts_with(edge) || !name.ends_with(edge) {
        return violation("invalid first or last character", "begin and end with a letter or a digit");
    }
    if name.contains("..") {
        return violation("two dots in a row", "put letters or digits between the dots");
    }
    if name.parse::<std::net::Ipv4Addr>().is_ok() {
        return violation("looks like an IP address", "use a name with letters");
    }
    for prefix in ["xn--", "sthree-", "amzn-s3-demo-"] {
        if name.starts_with(prefix) {
            return violation(format!("`{prefix}` is reserved by S3"), "choose a name with another beginning");
        }
    }
    // Buckets of an account-regional namespace are created by a call of their own (S3 user guide, bucket naming rules).
    if name.ends_with("-an") {
        return violation("`-an` denotes a bucket of an account-regional namespace", "choose a global bucket name");
    }
    for suffix in ["-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3"] {
        if name.ends_with(suffix) {
            return violation(format!("`{suffix}` is reserved by S3"), "choose a name with another ending");
        }
    }
    Ok(())
}

/// Checks a pipeline's name that is also the name of its bucket.
pub(super) fn derived_bucket_name(name: &str) -> Rule {
    BUCKET_NAME.check(name).map_err(|Violation { why, .. }| Violation {
        why: format!("as the name of the bucket: {why}"),
        help: "set bucket.name, or choose another name".to_owned(),
    })
}

/// Checks a region against AWS's scheme of `area-direction-number`; a list would miss the next region that AWS opens.
pub(super) fn region(name: &str) -> Rule {
    const AREAS: [&str; 16] = [
        "af", "ap", "ca", "cn", "eu", "eu-isoe", "eusc", "il", "me", "mx", "sa", "us", "us-gov", "us-iso", "us-isob",
        "us-isof",
    ];
    const DIRECTIONS: [&str; 9] =
        ["central", "north", "south", "east", "west", "northeast", "northwest", "southeast", "southwest"];
    let mut parts = name.rsplitn(3, '-');
    let (number, direction, area) = (parts.next(), parts.next(), parts.next());
    let number_ok = number.is_some_and(|n| n.len() == 1 && n.chars().all(|c| ('1'..='9').contains(&c)));
    let direction_ok = direction.is_some_and(|d| DIRECTIONS.contains(&d) || area == Some("eusc") && d.len() == 2);
    if number_ok && direction_ok && area.is_some_and(|a| AREAS.contains(&a) || a.starts_with("eusc")) {
        return Ok(());
    }
    violation("no AWS region has this name", "write a region such as \"us-east-1\" or \"eu-central-1\"")
}

/// Returns the partition of a region (botocore, partitions.json).
pub(crate) fn partition(region: &str) -> &'static str {
    const BY_PREFIX: [(&str, &str); 7] = [
        ("cn-", "aws-cn"),
        ("us-gov-", "aws-us-gov"),
        ("us-iso-", "aws-iso"),
        ("us-isob-", "aws-iso-b"),
        ("eu-isoe-", "aws-iso-e"),
        ("us-isof-", "aws-iso-f"),
        ("eusc-", "aws-eusc"),
    ];
    BY_PREFIX.iter().find(|(prefix, _)| region.starts_with(prefix)).map_or("aws", |(_, partition)| partition)
}

/// Checks a tag key against the rules of all services used here.
pub(super) fn tag_key(key: &str) -> Rule {
    length(key, 1, 128)?;
    if key.to_ascii_lowercase().starts_with("aws:") {
        return violation("`aws:` is reserved by AWS", "choose a key with another beginning");
    }
    // IAM does not distinguish the case of tag keys (IAM user guide, tags).
    if matches!(key.to_ascii_lowercase().as_str(), "pipeline" | "managed-by" | "managed-tags") {
        return violation("this tag marks what the pipeline owns", "remove it: it is set on every resource");
    }
    tag_letters(key)
}

/// Checks the letters of a tag against the rules of all services used here.
fn tag_letters(text: &str) -> Rule {
    letters(
        text,
        |c| c.is_alphanumeric() || c == ' ' || "_.:/=+-@".contains(c),
        "letters, digits, spaces and the signs _ . : / = + - @",
    )
}

/// Checks that a filter is a plain string.
fn filter(text: &str) -> Rule {
    if text.contains('*') || text.contains('?') {
        return violation("filters do not support wildcards", "write the exact string with which keys begin or end");
    }
    // It is a part of the roles' policies (IAM user guide, policy variables).
    if text.contains("${") {
        return violation("`${` begins a variable of IAM policies", "write keys without `${`");
    }
    letters(text, |c| !c.is_control(), "printable characters")
}

/// Checks an action of a policy statement.
fn action(action: &str) -> Rule {
    let shaped = action.split_once(':').is_some_and(|(service, call)| {
        !service.is_empty()
            && service.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
            && !call.is_empty()
            && call.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '*' | '?'))
    });
    if shaped { Ok(()) } else { violation("not an IAM action", "write service:Action, such as \"s3:GetObject\"") }
}

/// Returns the six parts of an ARN: `arn`, partition, service, region, account and resource.
fn arn_parts(arn: &str) -> Option<[&str; 6]> {
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    <[&str; 6]>::try_from(parts).ok().filter(|[prefix, ..]| *prefix == "arn")
}

/// The form of the ARN of a KMS key.
pub(super) const KMS_KEY_FORM: &str = "^arn:[^:]*:kms:[^:]*:[0-9]{12}:key/[A-Za-z0-9-]+$";
/// The form of the ARN of a standard topic.
pub(super) const TOPIC_FORM: &str = "^arn:[^:]*:sns:[^:]*:[0-9]{12}:[A-Za-z0-9_-]{1,256}$";
/// The form of the ARN of a managed policy.
pub(super) const POLICY_FORM: &str = "^arn:[^:]*:iam::(aws|[0-9]{12}):policy/.+$";
/// The form of an e-mail address.
pub(super) const EMAIL_FORM: &str = "^[^\\s@]+@[^\\s@]+$";
/// The form of a region.
pub(super) const REGION_FORM: &str = "^[a-z]{2,4}(-[a-z]+)+-[1-9]$";

/// Checks the ARN of a KMS key for resources in `region`. An alias is refused: IAM grants rights on keys only.
pub(super) fn kms_key(arn: &str, region: Option<&str>) -> Rule {
    let shape = "write arn:aws:kms:REGION:ACCOUNT:key/ID, as `aws kms describe-key` prints it";
    let Some([_, _, "kms", _, id, resource]) = arn_parts(arn) else {
        return violation("not the ARN of a KMS key", shape);
    };
    if resource.starts_with("alias/") {
        return violation("an alias, not a key", shape);
    }
    let key = resource.strip_prefix("key/").unwrap_or_default();
    if key.is_empty() || !key.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') || ACCOUNT.check(id).is_err() {
        return violation("not the ARN of a KMS key", shape);
    }
    in_region(arn, "key", region)
}

/// Checks that an ARN is in the region of the pipeline. `what` is the kind of its resource.
fn in_region(arn: &str, what: &str, region: Option<&str>) -> Rule {
    let (Some([_, partition, service, place, ..]), Some(region)) = (arn_parts(arn), region) else { return Ok(()) };
    if place != region {
        let help = format!("use a {what} in {region}, the region of the pipeline");
        return violation(format!("a {what} in {place}"), help);
    }
    if self::partition(region) != partition {
        let help = format!("write arn:{}:{service}:...", self::partition(region));
        return violation(format!("partition `{partition}`"), help);
    }
    Ok(())
}

/// Checks the ARN of an SNS standard topic for alarms in `region`.
pub(super) fn topic_arn(arn: &str, region: Option<&str>) -> Rule {
    let is_topic = matches!(arn_parts(arn), Some([_, _, "sns", _, id, name])
        if ACCOUNT.check(id).is_ok()
            && (1..=256).contains(&name.len())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')));
    if !is_topic {
        let help = "write arn:aws:sns:REGION:ACCOUNT:NAME, as `aws sns list-topics` prints it";
        return violation("not the ARN of a topic", help);
    }
    in_region(arn, "topic", region)
}

/// Checks the form of an e-mail address.
fn email(address: &str) -> Rule {
    letters(address, |c| !c.is_whitespace() && !c.is_control(), "characters other than spaces")?;
    match address.split_once('@') {
        Some((user, host)) if !user.is_empty() && !host.is_empty() && !host.contains('@') => Ok(()),
        _ => violation("not an e-mail address", "write one address, such as \"oncall@example.com\""),
    }
}

/// Checks the ARN of a managed policy.
fn policy_arn(arn: &str) -> Rule {
    let is_policy = matches!(arn_parts(arn), Some([_, _, "iam", "", owner, resource])
        if (owner == "aws" || ACCOUNT.check(owner).is_ok()) && resource.len() > 7 && resource.starts_with("policy/"));
    if is_policy {
        return Ok(());
    }
    violation("not the ARN of a managed policy", "write arn:aws:iam::ACCOUNT:policy/NAME")
}

/// The variables that Lambda sets itself (Lambda developer guide, reserved environment variables).
const RESERVED_VARIABLES: [&str; 18] = [
    "_HANDLER",
    "_X_AMZN_TRACE_ID",
    "AWS_DEFAULT_REGION",
    "AWS_REGION",
    "AWS_EXECUTION_ENV",
    "AWS_LAMBDA_FUNCTION_NAME",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
    "AWS_LAMBDA_FUNCTION_VERSION",
    "AWS_LAMBDA_INITIALIZATION_TYPE",
    "AWS_LAMBDA_LOG_GROUP_NAME",
    "AWS_LAMBDA_LOG_STREAM_NAME",
    "AWS_ACCESS_KEY",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_LAMBDA_RUNTIME_API",
    "LAMBDA_TASK_ROOT",
    "LAMBDA_RUNTIME_DIR",
];

/// Checks the name of an environment variable of a function.
pub(super) fn variable_name(name: &str) -> Rule {
    if RESERVED_VARIABLES.contains(&name) {
        return violation("Lambda sets this variable itself", "choose another name");
    }
    if name.chars().count() < 2 || !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return violation("not the name of a variable", "begin with a letter, and write two characters or more");
    }
    letters(name, |c| c.is_ascii_alphanumeric() || c == '_', "letters, digits and underscores")
}

/// Checks a resource of a policy statement.
fn resource(arn: &str) -> Rule {
    if arn == "*" || arn.starts_with("arn:") && arn.splitn(6, ':').count() == 6 {
        return Ok(());
    }
    violation("not an ARN", "write arn:aws:SERVICE:REGION:ACCOUNT:RESOURCE, such as \"arn:aws:s3:::acme-lookup/*\"")
}
