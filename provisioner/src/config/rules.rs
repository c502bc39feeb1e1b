//! AWS's rules for names and values, each as a plain function from a text to what is wrong with it.
//!
//! Sources: the naming pages of the Amazon S3, IAM, Lambda and DynamoDB user guides, and the services' API models.

/// What is wrong with a value, and what to write instead.
pub(super) struct BrokenRule {
    pub(super) why: String,
    pub(super) help: String,
}

pub(super) type Rule = Result<(), BrokenRule>;

fn broken(why: impl Into<String>, help: impl Into<String>) -> Rule {
    Err(BrokenRule { why: why.into(), help: help.into() })
}

fn length(text: &str, least: usize, most: usize) -> Rule {
    let n = text.chars().count();
    if (least..=most).contains(&n) {
        return Ok(());
    }
    broken(format!("{n} characters"), format!("write {least} to {most} characters"))
}

fn letters(text: &str, allowed: impl Fn(char) -> bool, said: &str) -> Rule {
    match text.chars().find(|c| !allowed(*c)) {
        Some(c) => broken(format!("`{}` is not allowed here", c.escape_default()), format!("use only {said}")),
        None => Ok(()),
    }
}

/// The pipeline's name goes into the names of a bucket, tables, roles and a function: it obeys the strictest of them
/// and leaves room for a suffix.
pub(super) fn pipeline_name(name: &str) -> Rule {
    length(name, 2, 40)?;
    letters(
        name,
        |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-',
        "lower-case letters, digits and hyphens",
    )?;
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) || name.ends_with('-') {
        return broken("begins or ends badly", "begin with a letter, end with a letter or a digit");
    }
    Ok(())
}

/// General purpose buckets.
pub(super) fn bucket_name(name: &str) -> Rule {
    length(name, 3, 63)?;
    letters(
        name,
        |c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.'),
        "lower-case letters, digits, hyphens and dots",
    )?;
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if !name.starts_with(edge) || !name.ends_with(edge) {
        return broken("begins or ends badly", "begin and end with a letter or a digit");
    }
    if name.contains("..") {
        return broken("two dots in a row", "put letters or digits between the dots");
    }
    if name.parse::<std::net::Ipv4Addr>().is_ok() {
        return broken("looks like an IP address", "use a name with letters");
    }
    for prefix in ["xn--", "sthree-", "amzn-s3-demo-"] {
        if name.starts_with(prefix) {
            return broken(format!("`{prefix}` is reserved by S3"), "begin the name otherwise");
        }
    }
    for suffix in ["-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3", "-an"] {
        if name.ends_with(suffix) {
            return broken(format!("`{suffix}` is reserved by S3"), "end the name otherwise");
        }
    }
    Ok(())
}

/// IAM role names.
pub(super) fn role_name(name: &str) -> Rule {
    length(name, 1, 64)?;
    letters(name, |c| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c), "letters, digits and the signs _ + = , . @ -")
}

/// Lambda function names.
pub(super) fn function_name(name: &str) -> Rule {
    length(name, 1, 64)?;
    letters(name, |c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'), "letters, digits, hyphens and underscores")
}

/// Names of SQS standard queues.
pub(super) fn queue_name(name: &str) -> Rule {
    length(name, 1, 80)?;
    letters(name, |c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'), "letters, digits, hyphens and underscores")
}

/// DynamoDB table names.
pub(super) fn table_name(name: &str) -> Rule {
    length(name, 3, 255)?;
    letters(
        name,
        |c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'),
        "letters, digits, hyphens, underscores and dots",
    )
}

/// Regions, by AWS's scheme of `area-direction-number`; a list would miss the next one that AWS opens.
pub(super) fn region(name: &str) -> Rule {
    const AREAS: [&str; 15] =
        ["af", "ap", "ca", "cn", "eu", "eusc", "il", "me", "mx", "sa", "us", "us-gov", "us-iso", "us-isob", "us-isof"];
    const DIRECTIONS: [&str; 9] =
        ["central", "north", "south", "east", "west", "northeast", "northwest", "southeast", "southwest"];
    let mut parts = name.rsplitn(3, '-');
    let (number, direction, area) = (parts.next(), parts.next(), parts.next());
    let number_ok = number.is_some_and(|n| n.len() == 1 && n.chars().all(|c| ('1'..='9').contains(&c)));
    let direction_ok = direction.is_some_and(|d| DIRECTIONS.contains(&d) || area == Some("eusc") && d.len() == 2);
    if number_ok && direction_ok && area.is_some_and(|a| AREAS.contains(&a) || a.starts_with("eusc")) {
        return Ok(());
    }
    broken("no AWS region has this name", "write a region such as \"us-east-1\" or \"eu-central-1\"")
}

/// Account ids.
pub(super) fn account(id: &str) -> Rule {
    if id.len() == 12 && id.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(());
    }
    broken("not an account id", "write its 12 digits as a text: account = \"123456789012\"")
}

/// Tag keys that every service used here takes.
pub(super) fn tag_key(key: &str) -> Rule {
    length(key, 1, 128)?;
    if key.to_ascii_lowercase().starts_with("aws:") {
        return broken("`aws:` is reserved by AWS", "begin the key otherwise");
    }
    if matches!(key, "pipeline" | "managed-by") {
        return broken("this tag marks what the pipeline owns", "leave it out: it is set on everything");
    }
    tag_letters(key)
}

/// Tag values that every service used here takes.
pub(super) fn tag_value(value: &str) -> Rule {
    length(value, 0, 256)?;
    tag_letters(value)
}

fn tag_letters(text: &str) -> Rule {
    letters(
        text,
        |c| c.is_alphanumeric() || c == ' ' || "_.:/=+-@".contains(c),
        "letters, digits, spaces and the signs _ . : / = + - @",
    )
}

/// Notification filters are plain texts at the beginning or the end of a key.
pub(super) fn filter(text: &str) -> Rule {
    length(text, 1, 1024)?;
    if text.contains('*') || text.contains('?') {
        return broken("a filter knows no wildcards", "write the text itself that keys begin or end with");
    }
    letters(text, |c| !c.is_control(), "printable characters")
}

/// Actions of a policy statement.
pub(super) fn action(action: &str) -> Rule {
    let shaped = action.split_once(':').is_some_and(|(service, call)| {
        !service.is_empty()
            && service.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
            && !call.is_empty()
            && call.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '*' | '?'))
    });
    if shaped { Ok(()) } else { broken("not an IAM action", "write service:Action, such as \"s3:GetObject\"") }
}

/// Ids of Segment workspaces. They serve as the external id of sts:AssumeRole, which has 2 to 1224 characters (IAM API
/// reference).
pub(super) fn workspace_id(id: &str) -> Rule {
    if (2..=1224).contains(&id.len()) {
        return Ok(());
    }
    broken("not a workspace id", "copy it from Segment's workspace settings")
}

/// Resources of a policy statement.
pub(super) fn resource(arn: &str) -> Rule {
    if arn == "*" || arn.starts_with("arn:") && arn.splitn(6, ':').count() == 6 {
        return Ok(());
    }
    broken("not an ARN", "write arn:aws:SERVICE:REGION:ACCOUNT:RESOURCE, such as \"arn:aws:s3:::acme-lookup/*\"")
}
