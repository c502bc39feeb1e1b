//! The estimate of a pipeline's monthly cost at a declared volume. All prices and assumptions are in this file.

use counting::plan::ADDITIONS_PER_CHUNK;

use super::alarm;
use crate::config::{Billing, Pipeline, Via, Volume};
use crate::reconcile::diff::Value;
use crate::reconcile::document::{Dollars, Estimate, OtherWay, ServiceCost};
use crate::reconcile::plan::{Action, Plan};
use crate::reconcile::resource::Address;

/// Region and month of the prices below, in dollars, from AWS's public price lists of Lambda, DynamoDB, S3,
/// CloudWatch and Kinesis (on-demand streams). Other regions cost up to twice as much.
const PRICES_OF: &str = "us-east-1, 2026-11";
const LAMBDA_MILLION_REQUESTS: f64 = 0.20;
const LAMBDA_GB_SECOND_X86: f64 = 0.000_016_666_7;
const LAMBDA_GB_SECOND_ARM: f64 = 0.000_013_333_4;
const DYNAMODB_MILLION_WRITES: f64 = 0.625;
const DYNAMODB_MILLION_READS: f64 = 0.125;
const DYNAMODB_WRITE_UNIT_HOUR: f64 = 0.000_65;
const DYNAMODB_READ_UNIT_HOUR: f64 = 0.000_13;
const S3_THOUSAND_PUTS: f64 = 0.005;
const S3_THOUSAND_GETS: f64 = 0.000_4;
const LOGS_GB: f64 = 0.50;
const SQS_MILLION_REQUESTS: f64 = 0.40;
const DYNAMODB_MILLION_CAPTURED: f64 = 0.10;
const KINESIS_STREAM_HOUR: f64 = 0.04;
const KINESIS_GB: f64 = 0.08;
const ALARM_METRIC: f64 = 0.10;
const CUSTOM_METRIC: f64 = 0.30;

/// The service that only a pipeline with a stream uses.
const KINESIS: &str = "Kinesis";
/// The service that only a pipeline with alarms uses.
const CLOUDWATCH: &str = "CloudWatch";

/// The monthly free tier that does not expire.
const FREE_REQUESTS: f64 = 1_000_000.0;
const FREE_GB_SECONDS: f64 = 400_000.0;
const FREE_CAPACITY_UNITS: f64 = 25.0;
const FREE_LOGS_GB: f64 = 5.0;
const FREE_SQS_REQUESTS: f64 = 1_000_000.0;
const FREE_ALARM_METRICS: f64 = 10.0;
const FREE_CUSTOM_METRICS: f64 = 10.0;

const HOURS: f64 = 730.0;
/// The requests to SQS per notification: S3 sends it, Lambda receives and deletes it.
const SQS_REQUESTS_A_FILE: f64 = 3.0;
/// The requests of an idle month: Lambda polls with five long polls of 20 seconds at the same time (Lambda developer
/// guide, using Lambda with SQS).
const SQS_REQUESTS_IDLE: f64 = 5.0 * 3.0 * 60.0 * HOURS;
/// The maximum number of pairs of event and hour in a file; a file with fewer events has one pair per event.
const PAIRS_A_FILE: f64 = 100.0;
/// The number of pairs in a transaction, in addition to their marker: each is added to its hour and to its day.
const PAIRS_A_CHUNK: f64 = (ADDITIONS_PER_CHUNK / 2) as f64;
/// The number of values of a field in a file, for each of its pairs.
const VALUES_A_PAIR: f64 = 5.0;
/// The size of a pair in a plan, compressed: about 15 bytes. A write unit is one kilobyte.
const PAIR_KILOBYTES: f64 = 0.015;
/// The other writes to the ledger: a claim in a transaction, and a record with its entry in the index.
const CLAIM_AND_RECORD: f64 = TRANSACTION + 2.0;
/// The changes of the ledger that the stream gets for a file: its claim and its record.
const CHANGES_A_FILE: f64 = 2.0;
/// The size in the stream of a kilobyte of a changed item: JSON with the names of attributes, and with bytes in Base64.
const STREAM_BYTES_A_CHANGE: f64 = 2_000.0;
/// The reads of the ledger: the record and the claims.
const READS_A_FILE: f64 = 2.0;
/// A transactional write costs double. The indexes are written outside of transactions.
const TRANSACTION: f64 = 2.0;
/// Capacity units are provisioned separately for a table and its index. The daily table has none.
const TABLE_AND_INDEX: f64 = 2.0;
const TABLE: f64 = 1.0;
/// Seconds of one full processor per event (docs/benchmarks.md: 0.47 s for 300,000 events), and seconds of the calls
/// per file and per transaction.
const SECONDS_AN_EVENT: f64 = 1.6e-6;
const SECONDS_A_FILE: f64 = 0.1;
const SECONDS_A_CHUNK: f64 = 0.02;
/// The memory at which a function gets one full processor (Lambda developer guide, memory).
const MB_A_PROCESSOR: f64 = 1_769.0;
/// The size of one log line of the function and three of Lambda.
const LOG_BYTES_A_FILE: f64 = 700.0;

/// The settings that determine the price, together with the volume.
#[derive(Debug, Clone, Copy)]
struct Settings {
    via: Via,
    /// The most files that are counted together.
    batch_size: f64,
    memory_mb: f64,
    is_arm: bool,
    /// The number of fields by whose values messages are counted as well.
    breakdowns: f64,
    /// The billing of the counts, daily, ledger and breakdowns tables; each index is billed like its table.
    billing: [Billing; 4],
    /// True if there is a Kinesis stream.
    has_stream: bool,
    /// The number of metrics that alarms watch, and of metrics that filters make of the log.
    alarm_metrics: f64,
    custom_metrics: f64,
}

/// Returns the number of metrics that the alarms of a plan watch, and of those that its filters make, without the
/// resources with the action `except`.
fn metrics(plan: &Plan, except: Action) -> (f64, f64) {
    let (mut alarms, mut filters) = (0, 0);
    for address in plan.items.iter().filter(|item| item.action != except).map(|item| item.address()) {
        match address.kind {
            "alarm" => alarms += alarm::metrics_of(&address.name),
            "metric filter" => filters += 1,
            _ => {}
        }
    }
    (count(alarms), count(filters))
}

/// Returns the estimate of a plan, if the file declares a volume.
pub(crate) fn estimate(pipeline: &Pipeline, plan: &Plan) -> Option<Estimate> {
    let volume = pipeline.estimate?;
    let notification = &pipeline.notification;
    let (alarm_metrics, custom_metrics) = metrics(plan, Action::Delete);
    let declared = Settings {
        via: notification.via,
        batch_size: notification.batch_size.into(),
        memory_mb: pipeline.function.memory_mb.into(),
        is_arm: pipeline.function.architecture == "arm64",
        breakdowns: count(u64::try_from(pipeline.rollup.by.len()).unwrap_or_default()),
        billing: [pipeline.table.billing; 4],
        has_stream: pipeline.stream.is_some(),
        alarm_metrics,
        custom_metrics,
    };
    let live = declared.before(pipeline, plan);
    let current = live.map(|live| live.costs(volume));
    let planned = declared.costs(volume);
    let sum = |costs: &[(&str, Dollars)]| Dollars {
        list: cents(costs.iter().map(|(_, dollars)| dollars.list).sum()),
        billed: cents(costs.iter().map(|(_, dollars)| dollars.billed).sum()),
    };
    let other = Settings { via: declared.via.other(), ..declared };
    let services = planned.iter().enumerate().map(|(i, (service, planned))| ServiceCost {
        service: (*service).to_owned(),
        current: current.as_ref().map(|current| current[i].1),
        planned: *planned,
    });
    let has_stream = declared.has_stream || live.is_some_and(|live| live.has_stream);
    let has_alarms = [Some(declared), live].into_iter().flatten().any(|settings| settings.alarm_metrics > 0.0);
    let is_used = |cost: &ServiceCost| match cost.service.as_str() {
        KINESIS => has_stream,
        CLOUDWATCH => has_alarms,
        _ => true,
    };
    Some(Estimate {
        events_per_month: volume.events_per_month,
        files_per_month: volume.files_per_month,
        prices: PRICES_OF.to_owned(),
        services: services.filter(is_used).collect(),
        current: current.as_ref().map(|current| sum(current)),
        planned: sum(&planned),
        other_way: OtherWay { via: other.via.name().to_owned(), planned: sum(&other.costs(volume)) },
    })
}

impl Settings {
    /// Returns the settings before the plan's changes, or `None` if the function or a table does not exist yet.
    fn before(self, pipeline: &Pipeline, plan: &Plan) -> Option<Self> {
        let mut before = self;
        (before.alarm_metrics, before.custom_metrics) = metrics(plan, Action::Create);
        let is_counter = |address: &Address| address.kind == "function" && *address.name == pipeline.function.name;
        for item in &plan.items {
            let (address, action) = (item.address(), item.action);
            if action == Action::Create && *address.name == pipeline.table.breakdowns {
                before.breakdowns = 0.0;
            } else if (address.kind == "table" || is_counter(address)) && action == Action::Create {
                return None;
            }
            if address.kind == "stream" {
                before.has_stream = action != Action::Create;
            }
            // The estimate includes no consumers.
            if address.kind == "function" && !is_counter(address) {
                continue;
            }
            for change in item.changes() {
                match (address.kind, change.setting, &change.live) {
                    ("function", "memory_mb", Value::Number(mb)) => {
                        before.memory_mb = f64::from(i32::try_from(*mb).ok()?)
                    }
                    ("function", "architecture", Value::Text(name)) => before.is_arm = name == "arm64",
                    ("table", "billing", Value::Document(billing)) => {
                        let table = &pipeline.table;
                        let tables = [&table.counts, &table.daily, &table.ledger, &table.breakdowns];
                        let table = tables.iter().position(|table| **table == address.name)?;
                        before.billing[table] = match (billing["read"].as_i64(), billing["write"].as_i64()) {
                            (Some(read), Some(write)) => Billing::Provisioned { read, write },
                            _ => Billing::OnDemand,
                        };
                    }
                    _ => {}
                }
            }
        }
        Some(before)
    }

    /// Returns the number of files that are counted together: those of an hour arrive at its end, and share their pairs,
    /// as the files of one source do.
    fn files_together(&self, files: f64) -> f64 {
        match self.via {
            Via::Queue => (files / HOURS).clamp(1.0, self.batch_size.max(1.0)),
            Via::Function => 1.0,
        }
    }

    fn costs(&self, volume: Volume) -> [(&'static str, Dollars); 7] {
        let (events, files) = (count(volume.events_per_month), count(volume.files_per_month));
        let events_a_file = events / files;
        let pairs = events_a_file.ceil().min(PAIRS_A_FILE);
        let values = pairs * VALUES_A_PAIR * self.breakdowns;
        let chunks = (pairs / PAIRS_A_CHUNK).ceil() + (values / count(ADDITIONS_PER_CHUNK as u64)).ceil();
        let together = self.files_together(files);
        let groups = files / together;

        let slowness = (MB_A_PROCESSOR / self.memory_mb).max(1.0);
        let seconds = SECONDS_A_FILE + events_a_file * SECONDS_AN_EVENT * slowness;
        let seconds = files * seconds + groups * chunks * SECONDS_A_CHUNK;
        let gb_seconds = seconds * self.memory_mb / 1024.0;
        let gb_second = if self.is_arm { LAMBDA_GB_SECOND_ARM } else { LAMBDA_GB_SECOND_X86 };
        let lambda = |requests: f64, gb_seconds: f64| {
            requests.max(0.0) / 1e6 * LAMBDA_MILLION_REQUESTS + gb_seconds.max(0.0) * gb_second
        };

        // Each pair is a write to the counts table, one to its index, and one to the daily table; each chunk has a marker.
        let plan = (together * (pairs + values) * PAIR_KILOBYTES).ceil();
        let ledger_writes = files * CLAIM_AND_RECORD + groups * (plan + chunks * TRANSACTION);
        let requests =
            |reads: f64, writes: f64| reads / 1e6 * DYNAMODB_MILLION_READS + writes / 1e6 * DYNAMODB_MILLION_WRITES;
        let mut dynamodb = Dollars { list: 0.0, billed: 0.0 };
        let mut free = (FREE_CAPACITY_UNITS, FREE_CAPACITY_UNITS);
        let [counts, daily, ledger, breakdowns] = self.billing;
        for (billing, parts, reads, writes) in [
            (counts, TABLE_AND_INDEX, 0.0, groups * pairs * (TRANSACTION + 1.0)),
            (daily, TABLE, 0.0, groups * pairs * TRANSACTION),
            (ledger, TABLE_AND_INDEX, files * READS_A_FILE, ledger_writes),
            (breakdowns, TABLE.min(self.breakdowns), 0.0, groups * values * TRANSACTION),
        ] {
            match billing {
                Billing::OnDemand => {
                    dynamodb.list += requests(reads, writes);
                    dynamodb.billed += requests(reads, writes);
                }
                Billing::Provisioned { read, write } => {
                    let units = |n: i64| count(u64::try_from(n).unwrap_or_default()) * parts;
                    let (read, write) = (units(read), units(write));
                    let hours = |read: f64, write: f64| {
                        HOURS * (read * DYNAMODB_READ_UNIT_HOUR + write * DYNAMODB_WRITE_UNIT_HOUR)
                    };
                    dynamodb.list += hours(read, write);
                    dynamodb.billed += hours((read - free.0).max(0.0), (write - free.1).max(0.0));
                    free = ((free.0 - read).max(0.0), (free.1 - write).max(0.0));
                }
            }
        }

        // DynamoDB captures every kilobyte of a changed item: those of a file, of the plan, and of the markers.
        let captured = if self.has_stream { files * CHANGES_A_FILE + groups * (plan + chunks) } else { 0.0 };
        dynamodb.list += captured / 1e6 * DYNAMODB_MILLION_CAPTURED;
        dynamodb.billed += captured / 1e6 * DYNAMODB_MILLION_CAPTURED;
        let stream_hours = if self.has_stream { HOURS } else { 0.0 };
        let kinesis = stream_hours * KINESIS_STREAM_HOUR + captured * STREAM_BYTES_A_CHANGE / 1e9 * KINESIS_GB;

        let s3 = files / 1e3 * (S3_THOUSAND_PUTS + S3_THOUSAND_GETS);
        let messages = match self.via {
            Via::Queue => SQS_REQUESTS_IDLE + files * SQS_REQUESTS_A_FILE,
            Via::Function => 0.0,
        };
        let sqs = |requests: f64| requests.max(0.0) / 1e6 * SQS_MILLION_REQUESTS;
        let gigabytes = files * LOG_BYTES_A_FILE / 1e9;
        let cloudwatch = |alarms: f64, metrics: f64| alarms.max(0.0) * ALARM_METRIC + metrics.max(0.0) * CUSTOM_METRIC;
        let (alarms, metrics) = (self.alarm_metrics, self.custom_metrics);
        let rounded = |list: f64, billed: f64| Dollars { list: cents(list), billed: cents(billed) };
        [
            (
                "Lambda",
                rounded(lambda(groups, gb_seconds), lambda(groups - FREE_REQUESTS, gb_seconds - FREE_GB_SECONDS)),
            ),
            ("DynamoDB", rounded(dynamodb.list, dynamodb.billed)),
            ("S3 requests", rounded(s3, s3)),
            ("SQS", rounded(sqs(messages), sqs(messages - FREE_SQS_REQUESTS))),
            ("CloudWatch Logs", rounded(gigabytes * LOGS_GB, (gigabytes - FREE_LOGS_GB).max(0.0) * LOGS_GB)),
            (KINESIS, rounded(kinesis, kinesis)),
            (
                CLOUDWATCH,
                rounded(
                    cloudwatch(alarms, metrics),
                    cloudwatch(alarms - FREE_ALARM_METRICS, metrics - FREE_CUSTOM_METRICS),
                ),
            ),
        ]
    }
}

fn cents(dollars: f64) -> f64 {
    (dollars * 100.0).round() / 100.0
}

/// Converts a number to a float. Volumes are far below 2^53, up to which a float represents every integer.
#[expect(clippy::cast_precision_loss, reason = "an estimate needs no more")]
fn count(n: u64) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOLUME: Volume = Volume { events_per_month: 100_000_000, files_per_month: 10_000 };
    const SMALL: Settings = Settings {
        via: Via::Function,
        batch_size: 100.0,
        memory_mb: 256.0,
        is_arm: false,
        billing: [Billing::OnDemand; 4],
        breakdowns: 0.0,
        has_stream: false,
        alarm_metrics: 0.0,
        custom_metrics: 0.0,
    };

    fn rounded(dollars: f64) -> Dollars {
        Dollars { list: cents(dollars), billed: cents(dollars) }
    }

    fn total(settings: Settings, volume: Volume) -> Dollars {
        let costs = settings.costs(volume);
        Dollars {
            list: costs.iter().map(|(_, dollars)| dollars.list).sum(),
            billed: costs.iter().map(|(_, dollars)| dollars.billed).sum(),
        }
    }

    #[test]
    fn costs_equal_a_calculation_by_hand() {
        // 10,000 files of 10,000 events, 100 pairs each: 300 units for their hours, 200 for their days, 2 for the plan, 2
        // for its claim, 6 for three markers, and 2 for the record.
        let writes = 10_000.0 * (300.0 + 200.0 + 2.0 + 2.0 + 6.0 + 2.0);
        let [(_, lambda), (_, dynamodb), (_, s3), (_, sqs), (_, logs), (_, kinesis), (_, alarms)] = SMALL.costs(VOLUME);
        assert_eq!(dynamodb.list, cents(writes / 1e6 * 0.625 + 20_000.0 / 1e6 * 0.125));
        assert_eq!(s3.list, 0.05);
        // 0.16 s, and 10,000 events at 1.6 µs, on a seventh of a processor and a quarter of a GB.
        let seconds = 10_000.0 * (0.16 + 0.016 * 1_769.0 / 256.0);
        assert_eq!(lambda.list, cents(0.01 * 0.2 + seconds * 0.25 * 0.000_016_666_7));
        assert_eq!((lambda.billed, logs.billed, sqs.list, kinesis.list, alarms.list), (0.0, 0.0, 0.0, 0.0, 0.0));
    }

    #[test]
    fn files_that_are_counted_together_cost_less_and_an_idle_queue_nothing() {
        let queue = Settings { via: Via::Queue, ..SMALL };
        // 14 files an hour, together: the additions of one, and a claim and a record each.
        let (alone, together) = (SMALL.costs(VOLUME)[1].1.list, queue.costs(VOLUME)[1].1.list);
        assert!(together < alone / 10.0, "{together} {alone}");
        let idle = queue.costs(Volume { events_per_month: 1, files_per_month: 1 });
        assert_eq!(idle.iter().map(|(_, dollars)| dollars.billed).sum::<f64>(), 0.0);
    }

    #[test]
    fn breakdown_costs_the_writes_of_its_values() {
        let divided = Settings { breakdowns: 1.0, ..SMALL };
        // 500 values of two units each, the 6 chunks' markers, and 8 units more for the plan.
        let more = 10_000.0 * (1_000.0 + 12.0 + 8.0) / 1e6 * DYNAMODB_MILLION_WRITES;
        let (before, after) = (SMALL.costs(VOLUME)[1].1.list, divided.costs(VOLUME)[1].1.list);
        assert!((after - before - more).abs() < 0.02, "{before} {after} {more}");
    }

    #[test]
    fn stream_costs_its_hours_and_what_is_captured() {
        let costs = Settings { has_stream: true, ..SMALL }.costs(VOLUME);
        // 10,000 files, with a claim, a record, two kilobytes of the plan and three markers each.
        let captured = 10_000.0 * (2.0 + 2.0 + 3.0);
        assert_eq!(costs[5], (KINESIS, rounded(730.0 * 0.04 + captured * 2e3 / 1e9 * 0.08)));
        let more = costs[1].1.list - SMALL.costs(VOLUME)[1].1.list;
        assert!((more - captured / 1e6 * 0.1).abs() <= 0.01, "{more}");
    }

    #[test]
    fn alarms_beyond_the_free_ones_are_billed() {
        let of = |alarm_metrics: f64, custom_metrics: f64| {
            Settings { alarm_metrics, custom_metrics, ..SMALL }.costs(VOLUME)[6]
        };
        assert_eq!(of(10.0, 2.0), (CLOUDWATCH, Dollars { list: 1.6, billed: 0.0 }));
        assert_eq!(of(13.0, 2.0), (CLOUDWATCH, Dollars { list: 1.9, billed: 0.3 }));
    }

    #[test]
    fn capacity_within_the_free_tier_costs_nothing() {
        let with = |units: i64| {
            let billing = [Billing::Provisioned { read: units, write: units }; 4];
            Settings { billing, ..SMALL }.costs(VOLUME)[1].1
        };
        assert_eq!(with(5).billed, 0.0);
        assert!(with(5).list > 0.0);
        assert!(with(40).billed > 0.0);
    }

    #[test]
    fn cost_of_more_events_is_not_lower() {
        let more = Volume { events_per_month: 10 * VOLUME.events_per_month, ..VOLUME };
        assert!(total(SMALL, more).list >= total(SMALL, VOLUME).list);
        assert!(total(SMALL, VOLUME).billed <= total(SMALL, VOLUME).list);
    }
}
