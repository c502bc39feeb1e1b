//! The names that the provisioner and the function share.
//!
//! The provisioner creates the tables and sets the function's environment; the function reads that environment and
//! writes to the tables; the provisioner's commands read them. Every name that crosses one of these boundaries is
//! defined here, once.

/// The function's environment variables.
pub mod env {
    /// Name of the counts table.
    pub const COUNTS_TABLE: &str = "COUNTS_TABLE";
    /// Name of the daily table.
    pub const DAILY_TABLE: &str = "DAILY_TABLE";
    /// Name of the ledger table.
    pub const LEDGER_TABLE: &str = "LEDGER_TABLE";
    /// Name of the bucket whose objects are counted.
    pub const BUCKET: &str = "BUCKET";
    /// ID of the account that owns the bucket.
    pub const BUCKET_OWNER: &str = "BUCKET_OWNER";
    /// The Segment message types that are counted, separated by commas: `track,page`.
    pub const COUNT_TYPES: &str = "COUNT_TYPES";
    /// Days after which a ledger marker may expire. Absent if the bucket keeps its objects forever.
    pub const LEDGER_TTL_DAYS: &str = "LEDGER_TTL_DAYS";
    /// [`crate::rollup::Limits::max_age_days`]. Absent if there is no limit.
    pub const MAX_AGE_DAYS: &str = "MAX_AGE_DAYS";
    /// [`crate::rollup::Limits::max_ahead_hours`]. Absent if there is no limit.
    pub const MAX_AHEAD_HOURS: &str = "MAX_AHEAD_HOURS";
    /// The paths of the fields that are summed, as a JSON list of texts. Absent if there are none.
    pub const SUM: &str = "SUM";
    /// The paths of the fields by whose values messages are counted as well, as a JSON list of texts. Absent if there are
    /// none.
    pub const BY: &str = "BY";
    /// [`crate::rollup::Rules::by_limit`]. Absent without [`BY`].
    pub const BY_LIMIT: &str = "BY_LIMIT";
    /// Name of the breakdowns table. Absent without [`BY`].
    pub const BREAKDOWNS_TABLE: &str = "BREAKDOWNS_TABLE";
    /// [`OUTBOX_ON`] if the markers say what was added, for the readers of the ledger's stream; otherwise absent.
    pub const OUTBOX: &str = "OUTBOX";
    /// The value of [`OUTBOX`].
    pub const OUTBOX_ON: &str = "on";
    /// [`DUPLICATES_COUNT`] if objects with the same content count each, otherwise absent.
    pub const DUPLICATES: &str = "DUPLICATES";
    /// The value of [`DUPLICATES`].
    pub const DUPLICATES_COUNT: &str = "count";
    /// All variables of the function.
    pub const ALL: [&str; 15] = [
        COUNTS_TABLE,
        DAILY_TABLE,
        LEDGER_TABLE,
        BUCKET,
        BUCKET_OWNER,
        COUNT_TYPES,
        MAX_AGE_DAYS,
        MAX_AHEAD_HOURS,
        LEDGER_TTL_DAYS,
        SUM,
        BY,
        BY_LIMIT,
        BREAKDOWNS_TABLE,
        OUTBOX,
        DUPLICATES,
    ];
}

/// The counts table: one item per event and hour, and nothing else.
pub mod counts {
    /// Partition key (S): the event's name.
    pub const EVENT: &str = "event";
    /// Sort key (S): the UTC hour, RFC 3339 to the second, such as `2015-08-04T12:00:00Z`.
    pub const HOUR: &str = "hour";
    /// Attribute (N): the number of such events in that hour.
    pub const COUNT: &str = "count";
    /// Global secondary index with [`HOUR`] as partition and [`EVENT`] as sort key.
    pub const BY_HOUR: &str = "by-hour";

    /// Returns the attribute (N) with the sum of a field, such as `sum:properties.revenue`.
    #[must_use]
    pub fn sum_of(field: &str) -> String {
        format!("sum:{field}")
    }

    /// Returns the attribute (N) with the number of messages that have the field.
    #[must_use]
    pub fn values_of(field: &str) -> String {
        format!("values:{field}")
    }
}

/// The daily table: one item per UTC day and event, the sum of that day's items of the counts table.
pub mod daily {
    /// Partition key (S): the UTC day, such as `2015-08-04`.
    pub const DAY: &str = "day";
    /// Sort key (S): the event's name.
    pub const EVENT: &str = super::counts::EVENT;
    /// Attribute (N): the number of such events on that day.
    pub const COUNT: &str = super::counts::COUNT;

    /// Returns the day of an hour, which is formatted as in the counts table.
    #[must_use]
    pub fn day_of(hour: &str) -> &str {
        hour.split_once('T').map_or(hour, |(day, _)| day)
    }
}

/// The breakdowns table: one item per breakdown, hour and value; with the attributes of the counts table. The counts of a
/// breakdown's values in an hour add up to the event's count, [`NONE`](breakdowns::NONE) and
/// [`OTHER`](breakdowns::OTHER) included.
pub mod breakdowns {
    /// Partition key (S): [`breakdown`].
    pub const BREAKDOWN: &str = "breakdown";
    /// Sort key (S): [`hour_value`].
    pub const HOUR_VALUE: &str = "hour_value";
    /// The character between the parts of a key. No path has it.
    pub const SEPARATOR: char = '#';
    /// The value of messages that lack the field, or have null or an empty text there.
    pub const NONE: &str = "(none)";
    /// The value of messages with an object, an array or several values there, and of those beyond the limits.
    pub const OTHER: &str = "(other)";

    /// Returns the partition key of an event's breakdown by the field at a path: `properties.plan#Order Completed`.
    #[must_use]
    pub fn breakdown(path: &str, event: &str) -> String {
        format!("{path}{SEPARATOR}{event}")
    }

    /// Returns the sort key of a value in an hour: `2015-08-04T12:00:00Z#pro`.
    #[must_use]
    pub fn hour_value(hour: &str, value: &str) -> String {
        format!("{hour}{SEPARATOR}{value}")
    }

    /// Returns the hour and the value of a sort key.
    #[must_use]
    pub fn split(hour_value: &str) -> Option<(&str, &str)> {
        hour_value.split_once(SEPARATOR)
    }
}

/// The ledger table: what was counted, and with which plan; see [`crate::protocol`]. Its items are
///
/// - the *records* of the counted objects: [`object_key`](ledger::object_key), 0;
/// - the *claims* of contents: [`content`](ledger::content), generation;
/// - the *parts* of a plan's bytes: [`plan`](ledger::plan), -1, -2 and so on;
/// - the *markers* of a plan's chunks: [`plan`](ledger::plan), chunk.
pub mod ledger {
    /// Partition key (S): the name of an object, a content or a plan.
    pub const OBJECT: &str = "object";
    /// Sort key (N).
    pub const CHUNK: &str = "chunk";
    /// Attribute (S) of a claim and a record: the plan's name; empty in a claim that was taken back.
    pub const PLAN: &str = "plan";
    /// Attribute (B) of a part: the bytes.
    pub const PART: &str = "part";
    /// Attribute (S) of a record, and field of a notification: the name of the recount that counted the object last.
    pub const RECOUNT: &str = "recount";
    /// Attribute (S) of a marker, and of a claim that was taken back: the [`crate::plan::Pair`]s that its transaction
    /// added, as JSON, for the readers of the table's stream.
    pub const ADDED: &str = "added";
    /// Attribute (N): the time at which the item was written, in epoch seconds.
    pub const WRITTEN_AT: &str = "written_at";
    /// Attribute (N) of an [`attempt`]: the time at which it began, in epoch milliseconds.
    pub const BEGUN_AT: &str = "begun_at";
    /// Attribute (N): the time, in epoch seconds, after which DynamoDB may delete the item (its time to live).
    pub const EXPIRES_AT: &str = "expires_at";
    /// Attribute (S) of a record: the UTC hour in which it was written, in the format of the counts table's
    /// [`HOUR`](super::counts::HOUR).
    pub const COUNTED_HOUR: &str = "counted_hour";
    /// Global secondary index with [`COUNTED_HOUR`] as partition key and [`WRITTEN_AT`] as sort key. It lists the records
    /// of recently counted objects without a scan of the whole ledger.
    pub const BY_COUNTED_HOUR: &str = "by-counted-hour";

    /// The version ID that S3 assigns to objects put while the bucket is not versioned. It identifies no content: every
    /// object put that way has it.
    pub const NULL_VERSION: &str = "null";

    /// Returns the identity of an object's content, which distinguishes it from other contents of the same key: its
    /// version ID if it has one other than [`NULL_VERSION`], otherwise its ETag without quotes. `None` if S3 returned
    /// neither.
    #[must_use]
    pub fn identity(version: Option<&str>, etag: Option<&str>) -> Option<String> {
        let version = version.filter(|version| *version != NULL_VERSION);
        version.or(etag.map(|etag| etag.trim_matches('"'))).map(str::to_owned)
    }

    /// Returns the name of a content: of the digest of its inflated bytes, or of the object's own name if objects with the
    /// same content are different ones.
    #[must_use]
    pub fn content(name: &str) -> String {
        format!("content:{name}")
    }

    /// Returns the name of the parts and markers of a plan.
    #[must_use]
    pub fn plan(name: &str) -> String {
        format!("plan:{name}")
    }

    /// Returns the name under which the ledger notes that an attempt to count an object began. No bucket's name contains a
    /// colon, so it is the name of no object.
    #[must_use]
    pub fn attempt(bucket: &str, key: &str, version: Option<&str>) -> String {
        format!("attempt:{}", object_key(bucket, key, version.unwrap_or_default()))
    }

    /// Returns the name of a stored object in the ledger: bucket, key and [`identity`].
    ///
    /// A bucket's name cannot contain a slash, and the identity is last, after a `#`, so no two objects share a name.
    #[must_use]
    pub fn object_key(bucket: &str, key: &str, identity: &str) -> String {
        format!("{bucket}/{key}#{identity}")
    }
}

/// The object that `provisioner verify` uploads to test a pipeline end to end.
pub mod verify {
    /// The event in it, if events are counted by name.
    pub const EVENT: &str = "provisioner verify";
    /// The hour in it: earlier than any real event, so that no query of a period includes it.
    pub const HOUR: &str = "1970-01-01T00:00:00Z";
    /// The beginning of its key, after the notification's prefix.
    pub const FOLDER: &str = "provisioner-verify/";
}

/// The function's log: one JSON object per line, with one of these texts in its `message`.
pub mod log_message {
    /// An object was counted by this invocation.
    pub const COUNTED: &str = "counted";
    /// The object of `verify` was counted by this invocation.
    pub const COUNTED_TEST: &str = "counted for a test";
    /// Lines of an object that was counted are no messages; the log line has the fields `error` and `why`.
    pub const SKIPPED: &str = "lines skipped";
    /// The pairs of an object that was counted exceed the limit; the log line has the fields `error` and `why`.
    pub const OVERFLOWED: &str = "pairs overflowed";
    /// The values of a field are more than `rollup.by_limit`; the log line has the fields `error` and `why`.
    pub const LIMITED: &str = "values limited";
    /// An object was complete before this invocation.
    pub const COUNTED_BEFORE: &str = "counted before";
    /// The object's content was counted with another object; the line has the field `duplicate_of`.
    pub const DUPLICATE: &str = "duplicate";
    /// A test object was removed before this invocation.
    pub const REMOVED: &str = "removed";
    /// An object was not counted; the line has the fields `error` and `why`.
    pub const NOT_COUNTED: &str = "not counted";
}

/// The message types of Segment's spec that a pipeline may count.
pub const MESSAGE_TYPES: [&str; 6] = ["track", "identify", "page", "screen", "group", "alias"];
