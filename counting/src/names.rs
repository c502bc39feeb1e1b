//! The names on which the provisioner and the function agree.
//!
//! The provisioner creates the tables and sets the function's environment; the function reads that environment and
//! writes the tables; the provisioner's commands read them. Every name that crosses one of these borders is defined
//! here, once.

/// The function's environment variables.
pub mod env {
    /// Name of the counts table.
    pub const COUNTS_TABLE: &str = "COUNTS_TABLE";
    /// Name of the ledger table.
    pub const LEDGER_TABLE: &str = "LEDGER_TABLE";
    /// The Segment message types that are counted, separated by commas: `track,page`.
    pub const COUNT_TYPES: &str = "COUNT_TYPES";
    /// Days after which a ledger marker may expire. Absent where the bucket keeps its objects for ever.
    pub const LEDGER_TTL_DAYS: &str = "LEDGER_TTL_DAYS";
    /// All of them.
    pub const ALL: [&str; 4] = [COUNTS_TABLE, LEDGER_TABLE, COUNT_TYPES, LEDGER_TTL_DAYS];
}

/// The counts table: one item per event and hour, and nothing else.
pub mod counts {
    /// Partition key (S): the event's name.
    pub const EVENT: &str = "event";
    /// Sort key (S): the UTC hour, RFC 3339 to the second, such as `2015-08-04T12:00:00Z`.
    pub const HOUR: &str = "hour";
    /// Attribute (N): how many such events there were in that hour.
    pub const COUNT: &str = "count";
    /// Global secondary index with [`HOUR`] as partition and [`EVENT`] as sort key.
    pub const BY_HOUR: &str = "by-hour";
}

/// The ledger table: one item per chunk of counts that was added for an object.
pub mod ledger {
    /// Partition key (S): see [`object_key`].
    pub const OBJECT: &str = "object";
    /// Sort key (N): the chunk's number, from 0.
    pub const CHUNK: &str = "chunk";
    /// Attribute (S): identifies the totals that the chunk was cut from, see [`crate::protocol`].
    pub const RUN: &str = "run";
    /// Attribute (N): the first chunk number of that run.
    pub const FIRST: &str = "first";
    /// Attribute (N): the number after the run's last chunk.
    pub const END: &str = "end";
    /// Attribute (L of L): the pairs that the chunk added, each `[event, hour, count]`.
    pub const PAIRS: &str = "pairs";
    /// Attribute (N): when the marker was written, in epoch seconds.
    pub const WRITTEN_AT: &str = "written_at";
    /// Attribute (N): epoch seconds after which DynamoDB may drop the marker (its time to live).
    pub const EXPIRES_AT: &str = "expires_at";
    /// Attribute (S), on the marker of a run's last chunk alone: the UTC hour in which it was written, as in the counts
    /// table's [`HOUR`](super::counts::HOUR).
    pub const COUNTED_HOUR: &str = "counted_hour";
    /// Attribute (N), beside [`COUNTED_HOUR`]: when S3 got the object, in epoch seconds.
    pub const UPLOADED_AT: &str = "uploaded_at";
    /// Global secondary index with [`COUNTED_HOUR`] as partition and [`WRITTEN_AT`] as sort key, and [`UPLOADED_AT`]: what
    /// was counted lately, without reading what was counted ever.
    pub const BY_COUNTED_HOUR: &str = "by-counted-hour";

    /// The version id that S3 gives what was put while a bucket had no versions. It is no identity: the next object put
    /// that way has it too.
    pub const NULL_VERSION: &str = "null";

    /// What tells one content of a key from the next: its version id, where it has one other than [`NULL_VERSION`], or else
    /// its ETag, as S3 gives it. Nothing where S3 gives neither.
    #[must_use]
    pub fn identity(version: Option<&str>, etag: Option<&str>) -> Option<String> {
        let version = version.filter(|version| *version != NULL_VERSION);
        version.or(etag.map(|etag| etag.trim_matches('"'))).map(str::to_owned)
    }

    /// The ledger's name for one stored object: bucket, key, and what tells one content of that key from the
    /// next, which is the version id where the object has one (other than [`NULL_VERSION`]) and the ETag (without quotes)
    /// elsewhere.
    ///
    /// A bucket's name cannot hold a slash, and the identity comes last behind a `#`, so two objects never share one
    /// name.
    #[must_use]
    pub fn object_key(bucket: &str, key: &str, identity: &str) -> String {
        format!("{bucket}/{key}#{identity}")
    }
}

/// The object by which `provisioner verify` proves that a pipeline works.
pub mod verify {
    /// The event in it, where events are counted by name.
    pub const EVENT: &str = "provisioner verify";
    /// The hour in it: before there was anything to count, so that no question about a period of time meets it.
    pub const HOUR: &str = "1970-01-01T00:00:00Z";
    /// What its key begins with, behind the notification's prefix.
    pub const FOLDER: &str = "provisioner-verify/";
}

/// The function's log: one JSON object a line, with these texts in its `message`.
pub mod log_message {
    /// An object was counted by this invocation.
    pub const COUNTED: &str = "counted";
    /// An object was complete before this invocation.
    pub const COUNTED_BEFORE: &str = "counted before";
    /// An object failed; the line has `error` and `why`.
    pub const NOT_COUNTED: &str = "not counted";
}

/// The message types of Segment's spec that a pipeline may count.
pub const MESSAGE_TYPES: [&str; 6] = ["track", "identify", "page", "screen", "group", "alias"];
