//! The event source mapping of a consumer: Lambda reads batches of a stream and invokes the function with them.
//!
//! Lambda names a mapping by a random id. A consumer's is found by its function.

use aws_sdk_lambda::types::{
    DestinationConfig, EventSourceMappingConfiguration, EventSourcePosition, Filter, FilterCriteria,
    FunctionResponseType, OnFailure,
};
use counting::names::ledger;
use serde_json::{Value as Json, json};

use super::event_source_mapping::{
    create_mapping, delete_mapping, is_paused, list_mappings, mapping_actions, update_mapping,
};
use super::function::{self, Function};
use super::queue::Queue;
use crate::aws::{Aws, AwsError, Call, ResourceError, absent_on, function_name, resource_in};
use crate::config::{self, Source};
use crate::error::Error;
use crate::reconcile::diff::{Diff, SettingChange, touches};
use crate::reconcile::ownership::Ownership;
use crate::reconcile::protection::Refusal;
use crate::reconcile::resource::{Address, IamActions, Resource, StepContext};
use crate::resources::{Context, Kind};

/// The stream that a mapping reads.
#[derive(Debug, Clone)]
enum Stream {
    /// That of this table, whose ARN ends in a label that DynamoDB chooses.
    OfTable(String),
    /// The Kinesis stream at this ARN.
    Kinesis(String),
}

/// The desired state of the mapping.
#[derive(Debug, Clone)]
pub(super) struct StreamMapping {
    /// The function's name.
    name: String,
    function_arn: String,
    stream: Stream,
    table_arn: String,
    /// The beginnings of the ARNs of the pipeline's streams; empty if the function is orphaned, whose mappings all end.
    own_streams: Vec<String>,
    /// The ARN pattern of every mapping.
    every_mapping: String,
    batch_size: i32,
    retries: i32,
    failure_queue_arn: String,
    depends_on: Vec<Address>,
}

/// The live state of the mapping.
#[derive(Debug, Default)]
pub(super) struct Live {
    id: String,
    state: String,
    /// True if it reads a stream that has ended.
    is_stale: bool,
    batch_size: Option<i32>,
    retries: Option<i32>,
    failure_queue_arn: Option<String>,
    filters: Json,
    halves_batches: bool,
    /// True if the function says which record of a batch failed.
    reports_failures: bool,
}

impl StreamMapping {
    /// Returns the patterns of the records that tell of an addition. The others of the ledger, such as claims and records
    /// of objects, cost no invocation.
    fn filters(&self) -> Json {
        let with = |kind: &str| {
            let record = json!({ "dynamodb": { "NewImage": { ledger::ADDED: { kind: [{ "exists": true }] } } } });
            match self.stream {
                Stream::OfTable(_) => record,
                Stream::Kinesis(_) => json!({ "data": record }),
            }
        };
        json!([with("S"), with("B")])
    }

    fn filter_criteria(&self) -> FilterCriteria {
        let patterns = self.filters();
        let patterns = patterns.as_array().into_iter().flatten();
        let filters = patterns.map(|pattern| Filter::builder().pattern(pattern.to_string()).build());
        FilterCriteria::builder().set_filters(Some(filters.collect())).build()
    }

    fn destination(&self) -> DestinationConfig {
        let failure = OnFailure::builder().destination(&self.failure_queue_arn).build();
        DestinationConfig::builder().on_failure(failure).build()
    }

    fn is_own(&self, mapping: &EventSourceMappingConfiguration) -> bool {
        let source = mapping.event_source_arn.as_deref().unwrap_or_default();
        let is_stream = ["dynamodb", "kinesis"].iter().any(|service| resource_in(source, service).is_some());
        let is_own = self.own_streams.is_empty() || self.own_streams.iter().any(|stream| source.starts_with(stream));
        is_own && is_stream
    }

    /// Returns the ARN of the stream as it is now; `None` if there is none.
    async fn live_stream(&self, aws: &Aws) -> Result<Option<String>, AwsError> {
        match &self.stream {
            Stream::Kinesis(arn) => Ok(Some(arn.clone())),
            Stream::OfTable(table) => {
                let answer = aws.dynamodb.describe_table().table_name(table).send().await;
                let answer = absent_on(answer.call("dynamodb:DescribeTable"), &["ResourceNotFoundException"])?;
                let table = answer.and_then(|answer| answer.table);
                let table = table
                    .filter(|table| table.stream_specification.as_ref().is_some_and(|stream| stream.stream_enabled));
                Ok(table.and_then(|table| table.latest_stream_arn))
            }
        }
    }
}

impl Kind for StreamMapping {
    fn desired(context: &Context<'_>) -> Vec<Self> {
        let consumers = context.pipeline.consumers.iter();
        consumers.filter_map(|consumer| Self::of(context, consumer)).collect()
    }

    fn name_from_arn(arn: &str) -> Option<String> {
        function_name(arn)
    }

    fn with_name(context: &Context<'_>, name: &str) -> Option<Self> {
        // The counter has no stream.
        let counter = &context.pipeline.function;
        let source = Source::Ledger { batch_size: 1 };
        let like = config::Function {
            name: name.to_owned(),
            source,
            failure_queue: format!("{name}-failures"),
            ..counter.clone()
        };
        let mapping = (name != counter.name).then(|| Self::of(context, &like)).flatten()?;
        Some(Self { own_streams: Vec::new(), ..mapping })
    }
}

impl StreamMapping {
    fn of(context: &Context<'_>, consumer: &config::Function) -> Option<Self> {
        let (account, table) = (context.account, &context.pipeline.table.ledger);
        let kinesis = context.pipeline.stream.as_ref();
        let mut depends_on =
            vec![Address::of::<Function>(&consumer.name), Address::of::<Queue>(&consumer.failure_queue)];
        let (stream, batch_size) = match consumer.source {
            Source::Notifications => return None,
            Source::Ledger { batch_size } => (Stream::OfTable(table.clone()), batch_size),
            Source::Stream { batch_size } => {
                let name = &kinesis?.name;
                depends_on.push(Address::of::<super::stream::Stream>(name));
                (Stream::Kinesis(account.stream_arn(name)), batch_size)
            }
        };
        depends_on.extend(function::table_addresses(context));
        let mut own_streams = vec![account.table_stream_arn(table, "")];
        own_streams.extend(kinesis.map(|stream| account.stream_arn(&stream.name)));
        Some(Self {
            name: consumer.name.clone(),
            function_arn: account.function_arn(&consumer.name),
            stream,
            table_arn: account.table_arn(table),
            own_streams,
            every_mapping: account.mapping_arn("*"),
            batch_size,
            retries: consumer.retries,
            failure_queue_arn: account.queue_arn(&consumer.failure_queue),
            depends_on,
        })
    }
}

impl Resource for StreamMapping {
    const NAME: &'static str = "stream mapping";
    type Live = Live;

    fn name(&self) -> String {
        self.name.clone()
    }

    /// Returns the function's ARN: the mapping's own has an id that is not known beforehand.
    fn arn(&self) -> String {
        self.function_arn.clone()
    }

    fn iam_actions(&self) -> Vec<IamActions> {
        let describe: &[&str] = &["dynamodb:DescribeTable"];
        // A mapping to an earlier stream is replaced.
        let update =
            &["lambda:CreateEventSourceMapping", "lambda:UpdateEventSourceMapping", "lambda:DeleteEventSourceMapping"];
        let mut actions = mapping_actions(&self.every_mapping, &self.function_arn, update);
        actions.push(IamActions { resource: self.table_arn.clone(), read: describe, ..IamActions::default() });
        actions
    }

    /// Returns `Owned`: it is of the pipeline's function.
    fn ownership(&self, _live: &Live) -> Ownership {
        Ownership::Owned
    }

    fn depends_on(&self) -> Vec<Address> {
        self.depends_on.clone()
    }

    async fn read(&self, aws: &Aws) -> Result<Option<Live>, ResourceError> {
        let request = aws.lambda.list_event_source_mappings().function_name(&self.name);
        let (stream, mut mappings) = tokio::try_join!(self.live_stream(aws), list_mappings(request))?;
        mappings.retain(|mapping| self.is_own(mapping));
        if mappings.is_empty() {
            return Ok(None);
        }
        let current = mappings.iter().position(|mapping| mapping.event_source_arn == stream);
        let mapping = mappings.swap_remove(current.unwrap_or(0));
        let missing = || Error::incomplete_answer(format!("read the event source mapping of {}", self.name), "UUID");
        let failure = mapping.destination_config.and_then(|destinations| destinations.on_failure);
        let criteria = mapping.filter_criteria.and_then(|criteria| criteria.filters).unwrap_or_default();
        let pattern = |filter: Filter| filter.pattern.and_then(|text| serde_json::from_str::<Json>(&text).ok());
        let types = mapping.function_response_types.unwrap_or_default();
        Ok(Some(Live {
            id: mapping.uuid.ok_or_else(missing)?,
            state: mapping.state.unwrap_or_default(),
            is_stale: current.is_none(),
            batch_size: mapping.batch_size,
            retries: mapping.maximum_retry_attempts,
            failure_queue_arn: failure.and_then(|failure| failure.destination),
            filters: criteria.into_iter().map(pattern).collect(),
            halves_batches: mapping.bisect_batch_on_function_error == Some(true),
            reports_failures: types.contains(&FunctionResponseType::ReportBatchItemFailures),
        }))
    }

    fn problems(&self, live: &Live) -> Vec<Refusal> {
        let problem = is_paused(&live.state).then(|| {
            Refusal::new(
                format!("is disabled: function {} is told nothing", self.name),
                format!(
                    "enable it: aws lambda update-event-source-mapping --enabled --uuid {}; a stream keeps its records for \
                     a day",
                    live.id
                ),
            )
        });
        problem.into_iter().collect()
    }

    fn compare(&self, live: Option<&Live>) -> Diff {
        let (earlier, current) = ("an earlier stream", "the current stream");
        Diff::new()
            .compare("stream", live.map(|l| if l.is_stale { earlier } else { current }), current)
            .compare("batch_size", live.and_then(|l| l.batch_size), self.batch_size)
            .compare("retries", live.and_then(|l| l.retries), self.retries)
            .compare("failure_queue", live.and_then(|l| l.failure_queue_arn.as_ref()), &self.failure_queue_arn)
            .compare("filters", live.map(|l| &l.filters), &self.filters())
            .compare("halves_batches", live.map(|l| l.halves_batches), true)
            .compare("reports_failures", live.map(|l| l.reports_failures), true)
    }

    async fn create(&self, step: &StepContext<'_>) -> Result<(), ResourceError> {
        let stream = self.live_stream(step.aws).await?;
        let missing = || Error::incomplete_answer(format!("read the stream of {}", self.name), "LatestStreamArn");
        let request = step
            .aws
            .lambda
            .create_event_source_mapping()
            .event_source_arn(stream.ok_or_else(missing)?)
            .function_name(&self.name)
            // From the oldest record on, so that none is missed while the mapping is created.
            .starting_position(EventSourcePosition::TrimHorizon)
            .batch_size(self.batch_size)
            .maximum_retry_attempts(self.retries)
            .bisect_batch_on_function_error(true)
            .destination_config(self.destination())
            .filter_criteria(self.filter_criteria())
            .function_response_types(FunctionResponseType::ReportBatchItemFailures);
        create_mapping(step, request).await
    }

    async fn update(
        &self,
        step: &StepContext<'_>,
        live: &Live,
        changes: &[SettingChange],
    ) -> Result<(), ResourceError> {
        // Lambda does not change the stream of a mapping.
        if touches(changes, &["stream"]) {
            delete_mapping(step, &live.id).await?;
            return self.create(step).await;
        }
        let request = step
            .aws
            .lambda
            .update_event_source_mapping()
            .uuid(&live.id)
            .function_name(&self.name)
            .batch_size(self.batch_size)
            .maximum_retry_attempts(self.retries)
            .bisect_batch_on_function_error(true)
            .destination_config(self.destination())
            .filter_criteria(self.filter_criteria())
            .function_response_types(FunctionResponseType::ReportBatchItemFailures);
        update_mapping(step, request).await
    }

    async fn delete(&self, step: &StepContext<'_>, live: &Live) -> Result<(), ResourceError> {
        delete_mapping(step, &live.id).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::tests::{FILES, assert_in_sync, declared};

    fn live_of(spec: &StreamMapping) -> Live {
        Live {
            id: "id".to_owned(),
            state: "Enabled".to_owned(),
            is_stale: false,
            batch_size: Some(spec.batch_size),
            retries: Some(spec.retries),
            failure_queue_arn: Some(spec.failure_queue_arn.clone()),
            filters: spec.filters(),
            halves_batches: true,
            reports_failures: true,
        }
    }

    #[test]
    fn mapping_as_created_is_in_sync() {
        assert_in_sync::<StreamMapping>(live_of);
        assert!(FILES.iter().any(|file| !declared::<StreamMapping>(file).is_empty()));
    }

    #[test]
    fn consumer_of_the_kinesis_stream_depends_on_it() {
        let file = "[stream]\n[[consumer]]\nname = \"alert\"\nfrom = \"kinesis\"";
        let spec = declared::<StreamMapping>(file).remove(0);
        assert!(spec.depends_on().iter().any(|address| address.kind == "stream"));
        assert_eq!(spec.diff(Some(&live_of(&spec))), []);
    }

    #[test]
    fn mapping_to_an_earlier_stream_is_drift_and_a_disabled_one_a_problem() {
        let spec = declared::<StreamMapping>("[[consumer]]\nname = \"alert\"").remove(0);
        let stale = Live { is_stale: true, ..live_of(&spec) };
        assert_eq!(spec.diff(Some(&stale)).iter().map(|change| change.setting).collect::<Vec<_>>(), ["stream"]);
        let disabled = Live { state: "Disabled".to_owned(), ..live_of(&spec) };
        assert_eq!((spec.diff(Some(&disabled)).len(), spec.problems(&disabled).len()), (0, 1));
    }
}
