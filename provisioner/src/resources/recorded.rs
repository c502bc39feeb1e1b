//! Tests of each kind against recorded AWS responses: a resource in sync is read and planned as a no-op, and a refusal
//! by AWS becomes an error with a help text. A request without a recorded response fails the test.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_http_client::test_util::infallible_client_fn;
use aws_smithy_types::body::SdkBody;

use super::tests::in_context;
use super::{Kind, desired_of};
use super::{bucket, function, log_group, metric_filter, notification, permission, queue, role, stream};
use super::{stream_destination, subscription, table, topic};
use crate::aws::Aws;
use crate::reconcile::apply::{Outcome, apply};
use crate::reconcile::plan::{Action, Found, Plan, PlanOptions};
use crate::reconcile::progress::{Event, Reporter};
use crate::reconcile::resource::{Address, Declared, Resource, StepContext};
use crate::shutdown::Shutdown;

/// The label of a request, and the status and body of the response.
type Recorded = (&'static str, u16, &'static str);

/// Returns the label of a request: its method and path, its target, or its action, depending on the protocol.
fn label(request: &http::Request<SdkBody>) -> String {
    if let Some(target) = request.headers().get("x-amz-target").and_then(|target| target.to_str().ok()) {
        return target.split('.').next_back().unwrap_or_default().to_owned();
    }
    let body = String::from_utf8_lossy(request.body().bytes().unwrap_or_default());
    if let Some(action) = body.split('&').find_map(|pair| pair.strip_prefix("Action=")) {
        return action.to_owned();
    }
    let uri = request.uri().path_and_query().map(|path| path.as_str().to_owned()).unwrap_or_default();
    let (path, query) = uri.split_once('?').unwrap_or((&uri, ""));
    let query: Vec<&str> = query.split('&').filter(|pair| !pair.starts_with("x-id=") && !pair.is_empty()).collect();
    let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
    format!("{} {}{query}", request.method(), path.trim_end_matches('/'))
}

/// Returns clients that receive these responses, and the list of their requests.
fn replay(answers: &'static [Recorded]) -> (Aws, Arc<Mutex<Vec<String>>>) {
    let requests = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&requests);
    let client = infallible_client_fn(move |request: http::Request<SdkBody>| {
        let label = label(&request);
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        // Returns the responses in turn, then the last one repeatedly.
        let earlier = log.iter().filter(|before| **before == label).count();
        let known: Vec<&Recorded> = answers.iter().filter(|(name, ..)| *name == label).collect();
        let (_, status, body) = known.get(earlier).or(known.last()).copied().unwrap_or(&("", 501, ""));
        log.push(label);
        // The line breaks of the recorded bodies are for readability only.
        let body = body.lines().map(str::trim_start).collect::<String>();
        http::Response::builder().status(*status).body(body).expect("a response")
    });
    let config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-central-1"))
        .credentials_provider(SharedCredentialsProvider::new(Credentials::for_tests()))
        .http_client(client)
        .endpoint_url("http://127.0.0.1:9")
        .build();
    (Aws::new(&config), requests)
}

struct Quiet;

impl Reporter for Quiet {
    fn event(&self, _: &Address, _: Action, _: &Event<'_>) {}
}

/// Asserts that the responses describe an owned resource in sync: its plan is a no-op, and each recorded request, all
/// of them reads, is sent exactly once.
async fn assert_no_op<K: Kind>(file: &'static str, answers: &'static [Recorded]) {
    let (aws, requests) = replay(answers);
    let resource = in_context(file, desired_of::<K>).into_iter().next().expect("a declaration");
    let observed = resource.observe(&aws).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(observed.changes(), []);
    // Alone, a resource is there before the first apply.
    let options = PlanOptions { adopt: true, ..PlanOptions::default() };
    let plan = Plan::reconcile(Found { declared: vec![observed], ..Found::default() }, options);
    assert!(plan.is_empty() && plan.notes.is_empty(), "{plan:?}");
    assert_eq!(apply(&aws, &plan, &Quiet, &Shutdown::never()).await, Outcome::default());

    let mut requests = requests.lock().unwrap_or_else(PoisonError::into_inner).clone();
    requests.sort_unstable();
    let mut expected: Vec<&str> = answers.iter().map(|(label, ..)| *label).collect();
    expected.sort_unstable();
    assert_eq!(requests, expected);
}

const BUCKET: [Recorded; 8] = [
    ("HEAD /events", 200, ""),
    (
        "GET /events?publicAccessBlock",
        200,
        "<PublicAccessBlockConfiguration><BlockPublicAcls>true</BlockPublicAcls><IgnorePublicAcls>true</IgnorePublicAcls>\
         <BlockPublicPolicy>true</BlockPublicPolicy><RestrictPublicBuckets>true</RestrictPublicBuckets>\
         </PublicAccessBlockConfiguration>",
    ),
    (
        "GET /events?ownershipControls",
        200,
        "<OwnershipControls><Rule><ObjectOwnership>BucketOwnerEnforced</ObjectOwnership></Rule></OwnershipControls>",
    ),
    (
        "GET /events?encryption",
        200,
        "<ServerSideEncryptionConfiguration><Rule><ApplyServerSideEncryptionByDefault><SSEAlgorithm>AES256</SSEAlgorithm>\
         </ApplyServerSideEncryptionByDefault><BucketKeyEnabled>false</BucketKeyEnabled></Rule>\
         </ServerSideEncryptionConfiguration>",
    ),
    ("GET /events?versioning", 200, "<VersioningConfiguration/>"),
    (
        "GET /events?lifecycle",
        200,
        "<LifecycleConfiguration><Rule><ID>pipeline-expire</ID><Filter><Prefix>segment-logs/</Prefix></Filter>\
         <Status>Enabled</Status><Expiration><Days>30</Days></Expiration><NoncurrentVersionExpiration>\
         <NoncurrentDays>30</NoncurrentDays></NoncurrentVersionExpiration></Rule><Rule><ID>unmanaged</ID><Filter/>\
         <Status>Disabled</Status><Expiration><Days>1</Days></Expiration></Rule></LifecycleConfiguration>",
    ),
    (
        "GET /events?policy",
        200,
        r#"{"Version":"2008-10-17","Statement":[{"Sid":"Unmanaged","Effect":"Deny","Principal":"*","Action":"s3:DeleteBucket",
        "Resource":"arn:aws:s3:::events"},{"Sid":"PipelineDenyPlainHttp","Effect":"Deny","Principal":"*","Action":"s3:*",
        "Resource":["arn:aws:s3:::events/*","arn:aws:s3:::events"],
        "Condition":{"Bool":{"aws:SecureTransport":"false"}}}]}"#,
    ),
    (
        "GET /events?tagging",
        200,
        "<Tagging><TagSet><Tag><Key>pipeline</Key><Value>events</Value></Tag><Tag><Key>managed-by</Key>\
         <Value>provisioner</Value></Tag><Tag><Key>cost</Key><Value>42</Value></Tag></TagSet></Tagging>",
    ),
];

#[tokio::test]
async fn recorded_bucket_is_a_no_op() {
    assert_no_op::<bucket::Bucket>("[bucket]\nexpire_days = 30", &BUCKET).await;
}

/// A provisioned table, whose description has no summary of its billing mode.
const TABLE: [Recorded; 5] = [
    (
        "DescribeTable",
        200,
        r#"{"Table":{"TableName":"events-counts","TableStatus":"ACTIVE","DeletionProtectionEnabled":true,
        "AttributeDefinitions":[{"AttributeName":"event","AttributeType":"S"},{"AttributeName":"hour","AttributeType":"S"}],
        "KeySchema":[{"AttributeName":"event","KeyType":"HASH"},{"AttributeName":"hour","KeyType":"RANGE"}],
        "ProvisionedThroughput":{"NumberOfDecreasesToday":0,"ReadCapacityUnits":5,"WriteCapacityUnits":5},
        "GlobalSecondaryIndexes":[{"IndexName":"by-hour","IndexStatus":"ACTIVE","Projection":{"ProjectionType":"ALL"},
        "KeySchema":[{"AttributeName":"hour","KeyType":"HASH"},{"AttributeName":"event","KeyType":"RANGE"}],
        "ProvisionedThroughput":{"NumberOfDecreasesToday":0,"ReadCapacityUnits":5,"WriteCapacityUnits":5}}]}}"#,
    ),
    (
        "GetResourcePolicy",
        400,
        r#"{"__type":"com.amazonaws.dynamodb.v20120810#PolicyNotFoundException","message":"no policy"}"#,
    ),
    ("DescribeTimeToLive", 200, r#"{"TimeToLiveDescription":{"TimeToLiveStatus":"DISABLED"}}"#),
    (
        "DescribeContinuousBackups",
        200,
        r#"{"ContinuousBackupsDescription":{"ContinuousBackupsStatus":"ENABLED","PointInTimeRecoveryDescription":
        {"PointInTimeRecoveryStatus":"ENABLED"}}}"#,
    ),
    (
        "ListTagsOfResource",
        200,
        r#"{"Tags":[{"Key":"managed-by","Value":"provisioner"},{"Key":"pipeline","Value":"events"}]}"#,
    ),
];

#[tokio::test]
async fn recorded_table_is_a_no_op() {
    assert_no_op::<table::Table>("[table]\nbilling = { read = 5, write = 5 }", &TABLE).await;
}

/// A concurrent run deletes the resource between two calls.
#[tokio::test]
async fn resource_deleted_while_it_is_read_is_absent() {
    const NOT_FOUND: &str =
        r#"{"__type":"com.amazonaws.dynamodb.v20120810#ResourceNotFoundException","message":"gone"}"#;
    const DENIED: &str = r#"{"__type":"com.amazon.coral.service#AccessDeniedException","message":"not authorized"}"#;
    const GONE: Recorded = ("DescribeTable", 400, NOT_FOUND);
    const TABLE_DELETED: [Recorded; 6] =
        [TABLE[0], TABLE[1], ("DescribeTimeToLive", 400, NOT_FOUND), TABLE[3], TABLE[4], GONE];
    const TAGS_DENIED: [Recorded; 6] =
        [TABLE[0], TABLE[1], TABLE[2], TABLE[3], ("ListTagsOfResource", 400, DENIED), GONE];
    const BUCKET_DELETED: [Recorded; 9] = [
        BUCKET[0],
        BUCKET[1],
        BUCKET[2],
        BUCKET[3],
        BUCKET[4],
        BUCKET[5],
        BUCKET[6],
        ("GET /events?tagging", 404, "<Error><Code>NoSuchBucket</Code><Message>gone</Message></Error>"),
        ("HEAD /events", 404, ""),
    ];
    let read = async |resource: Arc<dyn Declared>, answers: &'static [Recorded]| {
        let observed = resource.observe(&replay(answers).0).await.unwrap_or_else(|error| panic!("{error}"));
        assert!(!observed.exists(), "{}", observed.address());
    };
    read(in_context("", desired_of::<table::Table>).remove(0), &TABLE_DELETED).await;
    read(in_context("", desired_of::<table::Table>).remove(0), &TAGS_DENIED).await;
    read(in_context("[bucket]\nexpire_days = 30", desired_of::<bucket::Bucket>).remove(0), &BUCKET_DELETED).await;
}

/// IAM returns documents URL-encoded, and lists in arbitrary order.
const ROLE: [Recorded; 5] = [
    (
        "GetRole",
        200,
        "<GetRoleResponse><GetRoleResult><Role><Path>/pipeline/events/</Path><RoleName>events-function</RoleName>\
         <RoleId>AROAEXAMPLE</RoleId><Arn>arn:aws:iam::123456789012:role/pipeline/events/events-function</Arn>\
         <CreateDate>2015-08-04T12:00:00Z</CreateDate>\
         <Description>Permissions of the event pipeline's function</Description><AssumeRolePolicyDocument>\
         %7B%22Version%22%3A%222012-10-17%22%2C%22Statement%22%3A%7B%22Effect%22%3A%22Allow%22%2C%22Action%22%3A\
         %22sts%3AAssumeRole%22%2C%22Principal%22%3A%7B%22Service%22%3A%22lambda.amazonaws.com%22%7D%7D%7D\
         </AssumeRolePolicyDocument></Role></GetRoleResult></GetRoleResponse>",
    ),
    (
        "GetRolePolicy",
        200,
        "<GetRolePolicyResponse><GetRolePolicyResult><RoleName>events-function</RoleName><PolicyName>handler</PolicyName>\
         <PolicyDocument>%7B%22Version%22%3A%222012-10-17%22%2C%22Statement%22%3A%5B\
         %7B%22Sid%22%3A%22WriteLog%22%2C%22Effect%22%3A%22Allow%22%2C%22Action%22%3A%5B%22logs%3APutLogEvents%22%2C\
         %22logs%3ACreateLogStream%22%5D%2C%22Resource%22%3A\
         %22arn%3Aaws%3Alogs%3Aeu-central-1%3A123456789012%3Alog-group%3A%2Faws%2Flambda%2Fevents-handler%3A%2A%22%7D%2C\
         %7B%22Sid%22%3A%22KeepFailures%22%2C%22Effect%22%3A%22Allow%22%2C%22Action%22%3A%22sqs%3ASendMessage%22%2C\
         %22Resource%22%3A%22arn%3Aaws%3Asqs%3Aeu-central-1%3A123456789012%3Aevents-failures%22%7D%2C\
         %7B%22Sid%22%3A%22TakeNotifications%22%2C%22Effect%22%3A%22Allow%22%2C%22Action%22%3A%5B\
         %22sqs%3AReceiveMessage%22%2C%22sqs%3ADeleteMessage%22%2C%22sqs%3AGetQueueAttributes%22%2C\
         %22sqs%3AGetQueueUrl%22%2C%22sqs%3ASendMessage%22%5D%2C%22Resource%22%3A\
         %22arn%3Aaws%3Asqs%3Aeu-central-1%3A123456789012%3Aevents-notifications%22%7D%2C\
         %7B%22Sid%22%3A%22AddCounts%22%2C%22Effect%22%3A%22Allow%22%2C%22Action%22%3A%22dynamodb%3AUpdateItem%22%2C\
         %22Resource%22%3A%5B%22arn%3Aaws%3Adynamodb%3Aeu-central-1%3A123456789012%3Atable%2Fevents-daily%22%2C\
         %22arn%3Aaws%3Adynamodb%3Aeu-central-1%3A123456789012%3Atable%2Fevents-counts%22%5D%7D%2C\
         %7B%22Sid%22%3A%22MarkObjects%22%2C%22Effect%22%3A%22Allow%22%2C%22Action%22%3A%5B%22dynamodb%3AQuery%22%2C\
         %22dynamodb%3APutItem%22%5D%2C%22Resource%22%3A\
         %22arn%3Aaws%3Adynamodb%3Aeu-central-1%3A123456789012%3Atable%2Fevents-ledger%22%7D%2C\
         %7B%22Sid%22%3A%22MissObjects%22%2C%22Effect%22%3A%22Allow%22%2C%22Action%22%3A%22s3%3AListBucket%22%2C\
         %22Resource%22%3A%22arn%3Aaws%3As3%3A%3A%3Aevents%22%2C%22Condition%22%3A%7B%22StringLikeIfExists%22%3A\
         %7B%22s3%3Aprefix%22%3A%22segment-logs%2F%2A%22%7D%2C%22StringEquals%22%3A\
         %7B%22aws%3AResourceAccount%22%3A%22123456789012%22%7D%7D%7D%2C%7B%22Sid%22%3A%22ReadObjects%22%2C%22Effect%22%3A%22Allow%22%2C\
         %22Action%22%3A%5B%22s3%3AGetObjectVersion%22%2C%22s3%3AGetObject%22%5D%2C\
         %22Resource%22%3A%22arn%3Aaws%3As3%3A%3A%3Aevents%2Fsegment-logs%2F%2A.gz%22%2C%22Condition%22%3A\
         %7B%22StringEquals%22%3A%7B%22aws%3AResourceAccount%22%3A%22123456789012%22%7D%7D%7D%5D%7D\
         </PolicyDocument></GetRolePolicyResult></GetRolePolicyResponse>",
    ),
    (
        "ListRoleTags",
        200,
        "<ListRoleTagsResponse><ListRoleTagsResult><Tags><member><Key>pipeline</Key><Value>events</Value></member>\
         <member><Key>managed-by</Key><Value>provisioner</Value></member></Tags><IsTruncated>false</IsTruncated>\
         </ListRoleTagsResult></ListRoleTagsResponse>",
    ),
    (
        "ListRolePolicies",
        200,
        "<ListRolePoliciesResponse><ListRolePoliciesResult><PolicyNames><member>handler</member></PolicyNames>\
         <IsTruncated>false</IsTruncated></ListRolePoliciesResult></ListRolePoliciesResponse>",
    ),
    (
        "ListAttachedRolePolicies",
        200,
        "<ListAttachedRolePoliciesResponse><ListAttachedRolePoliciesResult><AttachedPolicies/>\
         <IsTruncated>false</IsTruncated></ListAttachedRolePoliciesResult></ListAttachedRolePoliciesResponse>",
    ),
];

#[tokio::test]
async fn recorded_role_is_a_no_op() {
    assert_no_op::<role::Role>("", &ROLE).await;
}

/// The log group is listed among others with the same prefix.
const LOG_GROUP: [Recorded; 2] = [
    (
        "DescribeLogGroups",
        200,
        r#"{"logGroups":[{"logGroupName":"/aws/lambda/events-handler-old"},
        {"logGroupName":"/aws/lambda/events-handler","retentionInDays":30}]}"#,
    ),
    ("ListTagsForResource", 200, r#"{"tags":{"pipeline":"events","managed-by":"provisioner","unmanaged":"x"}}"#),
];

#[tokio::test]
async fn recorded_log_group_is_a_no_op() {
    assert_no_op::<log_group::LogGroup>("", &LOG_GROUP).await;
}

/// A queue that is encrypted with a key of the account, which is in sync.
const QUEUE: [Recorded; 3] = [
    ("GetQueueUrl", 200, r#"{"QueueUrl":"https://sqs.eu-central-1.amazonaws.com/123456789012/events-failures"}"#),
    (
        "GetQueueAttributes",
        200,
        r#"{"Attributes":{"MessageRetentionPeriod":"1209600","SqsManagedSseEnabled":"true",
        "VisibilityTimeout":"30"}}"#,
    ),
    ("ListQueueTags", 200, r#"{"Tags":{"pipeline":"events","managed-by":"provisioner"}}"#),
];

#[tokio::test]
async fn recorded_queue_is_a_no_op() {
    assert_no_op::<queue::Queue>("", &QUEUE).await;
}

/// The tags of the stream are on two pages.
const STREAM: [Recorded; 3] = [
    (
        "DescribeStreamSummary",
        200,
        r#"{"StreamDescriptionSummary":{"StreamName":"events-stream","StreamStatus":"ACTIVE",
        "StreamARN":"arn:aws:kinesis:eu-central-1:123456789012:stream/events-stream",
        "StreamModeDetails":{"StreamMode":"ON_DEMAND"},"RetentionPeriodHours":24,"StreamCreationTimestamp":1.4e9,
        "EnhancedMonitoring":[{"ShardLevelMetrics":[]}],"EncryptionType":"KMS","KeyId":"alias/aws/kinesis",
        "OpenShardCount":4}}"#,
    ),
    ("ListTagsForStream", 200, r#"{"Tags":[{"Key":"managed-by","Value":"provisioner"}],"HasMoreTags":true}"#),
    ("ListTagsForStream", 200, r#"{"Tags":[{"Key":"pipeline","Value":"events"}],"HasMoreTags":false}"#),
];

#[tokio::test]
async fn recorded_stream_is_a_no_op() {
    assert_no_op::<stream::Stream>("[stream]", &STREAM).await;
}

/// A table that copied to another stream before.
const STREAM_DESTINATION: [Recorded; 1] = [(
    "DescribeKinesisStreamingDestination",
    200,
    r#"{"TableName":"events-ledger","KinesisDataStreamDestinations":[
    {"StreamArn":"arn:aws:kinesis:eu-central-1:123456789012:stream/old","DestinationStatus":"DISABLED"},
    {"StreamArn":"arn:aws:kinesis:eu-central-1:123456789012:stream/events-stream","DestinationStatus":"ACTIVE"}]}"#,
)];

#[tokio::test]
async fn recorded_stream_destination_is_a_no_op() {
    assert_no_op::<stream_destination::StreamDestination>("[stream]", &STREAM_DESTINATION).await;
}

const ALARMS: &str = "[alarms]\nemail = \"oncall@example.com\"";

const TOPIC_TAGS: Recorded = (
    "ListTagsForResource",
    200,
    "<ListTagsForResourceResponse><ListTagsForResourceResult><Tags><member><Key>pipeline</Key><Value>events</Value>\
     </member><member><Key>managed-by</Key><Value>provisioner</Value></member></Tags></ListTagsForResourceResult>\
     </ListTagsForResourceResponse>",
);
/// The policy has plain strings in place of lists of one.
const TOPIC: [Recorded; 2] = [
    (
        "GetTopicAttributes",
        200,
        "<GetTopicAttributesResponse><GetTopicAttributesResult><Attributes><entry><key>Policy</key><value>\
         {&quot;Version&quot;:&quot;2012-10-17&quot;,&quot;Statement&quot;:[{&quot;Sid&quot;:&quot;CloudWatchAlarms&quot;,\
         &quot;Effect&quot;:&quot;Allow&quot;,&quot;Principal&quot;:{&quot;Service&quot;:\
         &quot;cloudwatch.amazonaws.com&quot;},&quot;Action&quot;:&quot;sns:Publish&quot;,&quot;Resource&quot;:\
         &quot;arn:aws:sns:eu-central-1:123456789012:events-alarms&quot;,&quot;Condition&quot;:{&quot;StringEquals&quot;:\
         {&quot;aws:SourceAccount&quot;:&quot;123456789012&quot;},&quot;ArnLike&quot;:{&quot;aws:SourceArn&quot;:\
         &quot;arn:aws:cloudwatch:eu-central-1:123456789012:alarm:events-*&quot;}}}]}</value></entry><entry>\
         <key>DisplayName</key><value></value></entry></Attributes></GetTopicAttributesResult>\
         </GetTopicAttributesResponse>",
    ),
    TOPIC_TAGS,
];

#[tokio::test]
async fn recorded_topic_is_a_no_op() {
    assert_no_op::<topic::Topic>(ALARMS, &TOPIC).await;
}

/// The address is on the second page, after subscriptions of other kinds.
const SUBSCRIPTION: [Recorded; 3] = [
    (
        "ListSubscriptionsByTopic",
        200,
        "<ListSubscriptionsByTopicResponse><ListSubscriptionsByTopicResult><Subscriptions><member><TopicArn>\
         arn:aws:sns:eu-central-1:123456789012:events-alarms</TopicArn><Protocol>sqs</Protocol><SubscriptionArn>\
         arn:aws:sns:eu-central-1:123456789012:events-alarms:1</SubscriptionArn><Endpoint>\
         arn:aws:sqs:eu-central-1:123456789012:q</Endpoint></member></Subscriptions><NextToken>2</NextToken>\
         </ListSubscriptionsByTopicResult></ListSubscriptionsByTopicResponse>",
    ),
    (
        "ListSubscriptionsByTopic",
        200,
        "<ListSubscriptionsByTopicResponse><ListSubscriptionsByTopicResult><Subscriptions><member><TopicArn>\
         arn:aws:sns:eu-central-1:123456789012:events-alarms</TopicArn><Protocol>email</Protocol><SubscriptionArn>\
         arn:aws:sns:eu-central-1:123456789012:events-alarms:2</SubscriptionArn><Endpoint>oncall@example.com</Endpoint>\
         </member></Subscriptions></ListSubscriptionsByTopicResult></ListSubscriptionsByTopicResponse>",
    ),
    TOPIC_TAGS,
];

#[tokio::test]
async fn recorded_subscription_is_a_no_op() {
    assert_no_op::<subscription::Subscription>(ALARMS, &SUBSCRIPTION).await;
}

/// The filter is listed among others with the same prefix.
const METRIC_FILTER: [Recorded; 1] = [(
    "DescribeMetricFilters",
    200,
    r#"{"metricFilters":[{"filterName":"events-lines-old","filterPattern":"x","logGroupName":"/aws/lambda/events-handler"},
    {"filterName":"events-lines","filterPattern":"{ $.message = \"counted\" }","creationTime":1438689600000,
    "logGroupName":"/aws/lambda/events-handler","applyOnTransformedLogs":false,"metricTransformations":[
    {"metricName":"lines","metricNamespace":"EventPipeline/events","metricValue":"$.lines","unit":"None"}]}]}"#,
)];

#[tokio::test]
async fn recorded_metric_filter_is_a_no_op() {
    assert_no_op::<metric_filter::MetricFilter>(ALARMS, &METRIC_FILTER).await;
}

/// A function with a tag for its revision, which is not compared.
const FUNCTION: [Recorded; 2] = [
    (
        "GET /2015-03-31/functions/events-handler",
        200,
        r#"{"Configuration":{"FunctionName":"events-handler","Runtime":"provided.al2023","Handler":"bootstrap",
        "Role":"arn:aws:iam::123456789012:role/pipeline/events/events-function","CodeSize":3,"CodeSha256":"c2hh",
        "Description":"Counts the events of Segment's files per event and hour","Timeout":60,"MemorySize":256,
        "Environment":{"Variables":{"COUNT_TYPES":"track","COUNTS_TABLE":"events-counts","LEDGER_TABLE":"events-ledger",
        "DAILY_TABLE":"events-daily",
        "BUCKET":"events","BUCKET_OWNER":"123456789012","MAX_AGE_DAYS":"90","MAX_AHEAD_HOURS":"24"}},
        "Architectures":["x86_64"],"State":"Active","LastUpdateStatus":"Successful"},
        "Code":{"RepositoryType":"S3"},"Tags":{"managed-by":"provisioner","pipeline":"events","revision":"fedcba"}}"#,
    ),
    (
        "GET /2019-09-25/functions/events-handler/event-invoke-config",
        200,
        r#"{"MaximumRetryAttempts":2,"MaximumEventAgeInSeconds":21600,"DestinationConfig":{"OnSuccess":{},"OnFailure":
        {"Destination":"arn:aws:sqs:eu-central-1:123456789012:events-failures"}}}"#,
    ),
];

#[tokio::test]
async fn recorded_function_is_a_no_op() {
    assert_no_op::<function::Function>("", &FUNCTION).await;
}

const PERMISSION: [Recorded; 4] = [
    ("GET /2015-03-31/functions/events-handler/aliases", 200, r#"{"Aliases":[]}"#),
    (
        "GET /2015-03-31/functions/events-handler/versions",
        200,
        r#"{"Versions":[{"FunctionName":"events-handler","Version":"$LATEST"}]}"#,
    ),
    ("GET /2021-10-31/functions/events-handler/urls", 200, r#"{"FunctionUrlConfigs":[]}"#),
    (
        "GET /2015-03-31/functions/events-handler/policy",
        200,
        r#"{"Policy":"{\"Version\":\"2012-10-17\",\"Id\":\"default\",\"Statement\":[{\"Sid\":\"unmanaged\",\"Effect\":\"Allow\"},
    {\"Sid\":\"events-s3-00\",\"Effect\":\"Allow\",\"Principal\":{\"Service\":\"s3.amazonaws.com\"},
    \"Action\":\"lambda:InvokeFunction\",\"Resource\":\"arn:aws:lambda:eu-central-1:123456789012:function:events-handler\",
    \"Condition\":{\"StringEquals\":{\"AWS:SourceAccount\":\"123456789012\"},
    \"ArnLike\":{\"AWS:SourceArn\":\"arn:aws:s3:::events\"}}}]}"}"#,
    ),
];

#[tokio::test]
async fn recorded_permission_is_a_no_op() {
    assert_no_op::<permission::Permission>("", &PERMISSION).await;
}

/// S3 may return the names of filters capitalized.
const NOTIFICATION: [Recorded; 1] = [(
    "GET /events?notification",
    200,
    "<NotificationConfiguration><CloudFunctionConfiguration><Id>events-objects</Id>\
     <CloudFunction>arn:aws:lambda:eu-central-1:123456789012:function:events-handler</CloudFunction>\
     <Event>s3:ObjectCreated:*</Event><Filter><S3Key><FilterRule><Name>Suffix</Name><Value>.gz</Value></FilterRule>\
     <FilterRule><Name>Prefix</Name><Value>segment-logs/</Value></FilterRule></S3Key></Filter>\
     </CloudFunctionConfiguration><EventBridgeConfiguration/></NotificationConfiguration>",
)];

#[tokio::test]
async fn recorded_notification_is_a_no_op() {
    assert_no_op::<notification::Notification>("[notification]\nvia = \"function\"", &NOTIFICATION).await;
}

/// Returns the error of a table's update, and the number of UpdateTable requests.
async fn failed_table_update(answers: &'static [Recorded]) -> (String, usize) {
    let (aws, requests) = replay(answers);
    let spec = in_context("", <table::Table as Kind>::desired).remove(0);
    let address = Address::of::<table::Table>("events-counts");
    let step = StepContext {
        aws: &aws,
        address: &address,
        on_wait: &|_, _: Duration| {},
        on_progress: &|_, _| {},
        on_exists: &|| {},
    };
    let live = spec.read(&aws).await.expect("a table").expect("a table");
    let changes = spec.diff(Some(&live));
    let fault = spec.update(&step, &live, &changes).await.expect_err("an error");
    let requests = requests.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let updates = requests.iter().filter(|label| *label == "UpdateTable").count();
    (fault.on("update", &address).to_string(), updates)
}

const UPDATE_LIMIT_EXCEEDED: [Recorded; 6] = [
    TABLE[0],
    TABLE[1],
    TABLE[2],
    TABLE[3],
    TABLE[4],
    (
        "UpdateTable",
        400,
        r#"{"__type":"com.amazonaws.dynamodb.v20120810#LimitExceededException","message":"Subscriber limit exceeded: Update to
        PayPerRequest mode are limited to once in 1 day(s). Last update at Mon Aug 03 12:00:00 UTC 2015."}"#,
    ),
];

#[tokio::test]
async fn second_change_of_the_billing_mode_in_a_day_is_not_retried() {
    let (error, updates) = failed_table_update(&UPDATE_LIMIT_EXCEEDED).await;
    assert!(error.contains("once in 1 day") && error.contains("DynamoDB limits changes of the billing"), "{error}");
    assert!(error.contains("help: ") && error.contains("24 hours"), "{error}");
    assert_eq!(updates, 1);
}
