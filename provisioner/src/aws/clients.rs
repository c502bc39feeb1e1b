//! The clients of the AWS services, with their retries and timeouts.

use std::time::Duration;

use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::operation::create_table::CreateTableError;
use aws_sdk_dynamodb::operation::update_table::UpdateTableError;
use aws_sdk_s3control::config::endpoint::{Endpoint, EndpointFuture, Params, ResolveEndpoint};
use aws_smithy_runtime_api::client::interceptors::context::InterceptorContext;
use aws_smithy_runtime_api::client::retries::classifiers::{ClassifyRetry, RetryAction};

use super::error::{ATTEMPT, CALL};
use super::http;
use crate::config::{LOCAL, Pipeline};
use crate::error::Error;

/// Attempts of one call, including the first. The pauses between them double, with jitter, so five attempts bridge an
/// outage of up to four seconds. A longer outage is reported, and an endpoint that refuses connections is reported
/// within seconds.
const ATTEMPTS: u32 = 5;
/// The first pause between attempts.
const BACKOFF: Duration = Duration::from_millis(250);
/// The time limit of a connection attempt; a slower one is unlikely to succeed.
const CONNECT: Duration = Duration::from_secs(3);

/// A retry classifier that forbids retries at DynamoDB's limits on table changes. The SDK takes every
/// `LimitExceededException` for a throttle and retries it, but these limits last a day, or until another change is
/// complete, which the caller waits for.
#[derive(Debug)]
struct TableLimits;

impl ClassifyRetry for TableLimits {
    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        let error = context.output_or_error().and_then(Result::err).and_then(|error| error.as_operation_error());
        let is_limit = error.is_some_and(|error| {
            let on_create =
                error.downcast_ref::<CreateTableError>().is_some_and(CreateTableError::is_limit_exceeded_exception);
            on_create
                || error.downcast_ref::<UpdateTableError>().is_some_and(UpdateTableError::is_limit_exceeded_exception)
        });
        if is_limit { RetryAction::RetryForbidden } else { RetryAction::NoActionIndicated }
    }

    fn name(&self) -> &'static str {
        "limits on table changes"
    }
}

/// Clients for one account and region.
#[derive(Debug, Clone)]
pub(crate) struct Aws {
    /// Amazon S3.
    pub(crate) s3: aws_sdk_s3::Client,
    /// DynamoDB.
    pub(crate) dynamodb: aws_sdk_dynamodb::Client,
    /// Lambda.
    pub(crate) lambda: aws_sdk_lambda::Client,
    /// IAM.
    pub(crate) iam: aws_sdk_iam::Client,
    /// CloudWatch.
    pub(crate) cloudwatch: aws_sdk_cloudwatch::Client,
    /// CloudWatch Logs.
    pub(crate) logs: aws_sdk_cloudwatchlogs::Client,
    /// Kinesis Data Streams.
    pub(crate) kinesis: aws_sdk_kinesis::Client,
    /// SNS.
    pub(crate) sns: aws_sdk_sns::Client,
    /// Amazon S3 Control.
    pub(crate) s3control: aws_sdk_s3control::Client,
    /// Application Auto Scaling.
    pub(crate) autoscaling: aws_sdk_applicationautoscaling::Client,
    /// SQS.
    pub(crate) sqs: aws_sdk_sqs::Client,
    /// Resource Groups Tagging API.
    pub(crate) tagging: aws_sdk_resourcegroupstagging::Client,
    /// AWS STS.
    pub(crate) sts: aws_sdk_sts::Client,
    /// The custom endpoint of S3, if one is set.
    pub(crate) endpoint: Option<String>,
}

/// The suffixes of the variable `AWS_ENDPOINT_URL_...` of each service that the provisioner calls (AWS SDKs and tools
/// reference guide, service-specific endpoints).
const SERVICES: [&str; 13] = [
    "APPLICATION_AUTO_SCALING",
    "CLOUDWATCH",
    "CLOUDWATCH_LOGS",
    "DYNAMODB",
    "IAM",
    "KINESIS",
    "LAMBDA",
    "RESOURCE_GROUPS_TAGGING_API",
    "S3",
    "S3_CONTROL",
    "SNS",
    "SQS",
    "STS",
];

/// Returns whether an endpoint belongs to AWS, such as that of a VPC endpoint.
fn is_of_aws(endpoint: &str) -> bool {
    let rest = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
    let host = rest.split(['/', ':']).next().unwrap_or_default().to_ascii_lowercase();
    // The domains of the partitions (botocore, partitions.json).
    let domains = [
        "amazonaws.com",
        "amazonaws.com.cn",
        "api.aws",
        "api.amazonwebservices.com.cn",
        "amazonaws.eu",
        "c2s.ic.gov",
        "sc2s.sgov.gov",
        "cloud.adc-e.uk",
        "csp.hci.ic.gov",
    ];
    domains.iter().any(|domain| host == *domain || host.ends_with(&format!(".{domain}")))
}

/// Returns the endpoint of each service that is not a local one: that of AWS itself, or one of its VPC endpoints.
fn services_at_aws(general: Option<&str>) -> Vec<&'static str> {
    let own = |service: &str| std::env::var(format!("AWS_ENDPOINT_URL_{service}")).ok().filter(|url| !url.is_empty());
    let is_at_aws = |service: &&&str| {
        let endpoint = own(service).or_else(|| general.map(str::to_owned));
        endpoint.is_none_or(|endpoint| is_of_aws(&endpoint))
    };
    SERVICES.iter().filter(is_at_aws).copied().collect()
}

/// Returns the region of the environment or of the profile, if there is one. Asks no service.
pub(crate) async fn configured_region() -> Option<String> {
    let chain = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new());
    chain.or_else(ProfileFileRegionProvider::new()).region().await.map(|region| region.to_string())
}

/// The endpoint of S3 Control on a custom endpoint. The SDK would put the account's id before the host, which a local
/// AWS does not resolve; the id is in a header too.
#[derive(Debug)]
struct WithoutAccount(String);

impl ResolveEndpoint for WithoutAccount {
    fn resolve_endpoint<'a>(&'a self, _: &'a Params) -> EndpointFuture<'a> {
        EndpointFuture::ready(Ok(Endpoint::builder().url(self.0.clone()).build()))
    }
}

impl Aws {
    /// Creates the clients from the standard environment variables and files. Makes no AWS call, but may query a
    /// credential provider.
    ///
    /// # Errors
    /// [`crate::error::ErrorKind::Usage`] if `AWS_REGION` contradicts the file: one of the two is a mistake, and a
    /// wrong guess would deploy to the wrong region. Likewise if the environment `local` would reach AWS itself.
    pub(crate) async fn connect(pipeline: &Pipeline) -> Result<Self, Error> {
        if let Ok(region) = std::env::var("AWS_REGION")
            && !region.is_empty()
            && region != pipeline.region
        {
            return Err(Error::usage(
                format!(
                    "conflicting regions: pipeline.toml names {}, AWS_REGION names {}",
                    pipeline.region,
                    region.escape_debug()
                ),
                "correct pipeline.region, or unset AWS_REGION",
            ));
        }
        let config = aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new(pipeline.region.clone()))
            .http_client(http::client()?)
            .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS).with_initial_backoff(BACKOFF))
            .timeout_config(
                TimeoutConfig::builder()
                    .connect_timeout(CONNECT)
                    .operation_attempt_timeout(ATTEMPT)
                    .operation_timeout(CALL)
                    .build(),
            )
            .load()
            .await;
        let aws = Self::new(&config);
        let at_aws = services_at_aws(config.endpoint_url());
        if pipeline.environment.as_deref() == Some(LOCAL) && !at_aws.is_empty() {
            let without =
                if at_aws.len() == SERVICES.len() { String::new() } else { format!(" for {}", at_aws.join(", ")) };
            return Err(Error::usage(
                format!("the environment `local` requires an endpoint of a local AWS{without}"),
                "export the variables that `make local` prints, or remove --env local (and PIPELINE_ENV)",
            ));
        }
        Ok(aws)
    }

    /// Returns whether the endpoint is that of a local AWS.
    pub(crate) fn is_local(&self) -> bool {
        self.endpoint.as_ref().is_some_and(|endpoint| !is_of_aws(endpoint))
    }

    /// Creates the clients from an SDK configuration.
    pub(crate) fn new(config: &SdkConfig) -> Self {
        let endpoint = std::env::var("AWS_ENDPOINT_URL_S3").ok().or_else(|| config.endpoint_url().map(str::to_owned));
        // A local AWS has no host name per bucket.
        let is_local = endpoint.as_ref().is_some_and(|endpoint| !is_of_aws(endpoint));
        let s3 = aws_sdk_s3::config::Builder::from(config).force_path_style(is_local).build();
        let mut s3control = aws_sdk_s3control::config::Builder::from(config);
        let control_endpoint = std::env::var("AWS_ENDPOINT_URL_S3_CONTROL").ok();
        let control_endpoint = control_endpoint.or_else(|| config.endpoint_url().map(str::to_owned));
        if let Some(endpoint) = control_endpoint.filter(|endpoint| !is_of_aws(endpoint)) {
            s3control = s3control.endpoint_resolver(WithoutAccount(endpoint));
        }
        Self {
            s3: aws_sdk_s3::Client::from_conf(s3),
            s3control: aws_sdk_s3control::Client::from_conf(s3control.build()),
            autoscaling: aws_sdk_applicationautoscaling::Client::new(config),
            dynamodb: aws_sdk_dynamodb::Client::from_conf(
                aws_sdk_dynamodb::config::Builder::from(config).retry_classifier(TableLimits).build(),
            ),
            lambda: aws_sdk_lambda::Client::new(config),
            iam: aws_sdk_iam::Client::new(config),
            cloudwatch: aws_sdk_cloudwatch::Client::new(config),
            logs: aws_sdk_cloudwatchlogs::Client::new(config),
            kinesis: aws_sdk_kinesis::Client::new(config),
            sns: aws_sdk_sns::Client::new(config),
            sqs: aws_sdk_sqs::Client::new(config),
            tagging: aws_sdk_resourcegroupstagging::Client::new(config),
            sts: aws_sdk_sts::Client::new(config),
            endpoint,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use aws_credential_types::Credentials;

    use super::*;
    use crate::aws::{Answer, Call};

    #[test]
    fn endpoints_of_aws_are_not_local() {
        for endpoint in [
            "https://s3.eu-central-1.amazonaws.com",
            "https://vpce-1.s3.us-east-1.vpce.amazonaws.com/",
            "https://sqs.cn-north-1.amazonaws.com.cn:443",
            "https://LAMBDA.us-east-1.API.AWS",
        ] {
            assert!(is_of_aws(endpoint), "{endpoint}");
        }
        for endpoint in ["http://127.0.0.1:4566", "http://amazonaws.com.example.com", "http://local/amazonaws.com"] {
            assert!(!is_of_aws(endpoint), "{endpoint}");
        }
    }

    #[tokio::test]
    async fn call_to_a_silent_server_times_out() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let attempt = Duration::from_millis(200);
        let config = aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .endpoint_url(format!("http://127.0.0.1:{port}"))
            .credentials_provider(Credentials::for_tests())
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .retry_config(RetryConfig::standard().with_max_attempts(2).with_initial_backoff(Duration::from_millis(10)))
            .timeout_config(TimeoutConfig::builder().operation_attempt_timeout(attempt).build())
            .load()
            .await;
        let started = Instant::now();
        let answer = Aws::new(&config).sts.get_caller_identity().send().await.call("sts:GetCallerIdentity");
        let error = answer.expect_err("a timeout");
        assert!(matches!(error.answer, Answer::TimedOut), "{error}");
        assert!(
            error.to_string().contains("60 s per attempt") && error.remedy().contains("AWS_ENDPOINT_URL"),
            "{error}"
        );
        assert!(started.elapsed() >= attempt * 2 && started.elapsed() < attempt * 50);
        drop(listener);
    }
}
