//! The error of a call: typed for decisions, and convertible into the user-facing [`Error`].

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use aws_smithy_types::error::operation::BuildError;

use super::credentials;
use crate::error::{Error, ErrorKind};
use crate::text::printable;

/// The time limit of one attempt, long enough to upload the function's code over a slow connection.
pub(crate) const ATTEMPT: Duration = Duration::from_secs(60);
/// The time limit of one call with all its attempts.
pub(crate) const CALL: Duration = Duration::from_secs(150);

/// A failed call.
#[derive(Debug)]
pub(crate) struct AwsError {
    /// The call, as IAM names it: `s3:PutBucketPolicy`.
    pub(crate) call: &'static str,
    /// The failure.
    pub(crate) answer: Answer,
}

/// The failure of a call.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The service answered with an error.
    Service {
        /// The HTTP status.
        status: u16,
        /// The service's error code; empty if the answer had no body (HEAD).
        code: String,
        /// The service's message; may be empty.
        message: String,
        /// The id of the request, for AWS Support.
        request_id: Option<String>,
        /// The region that S3 names in a header, if it is the bucket's and not the caller's.
        bucket_region: Option<String>,
    },
    /// No usable credentials.
    Credentials {
        /// The profile that was tried.
        profile: String,
        /// The causes, one line each.
        causes: Vec<String>,
    },
    /// No answer: the host name is unknown, the connection was refused, or TLS failed.
    Unreachable(String),
    /// No answer within the time limit.
    TimedOut,
    /// An answer that cannot be parsed, or a request that could not be built.
    Unclear(String),
}

const CLOCK: &str = "this machine's clock is wrong: correct it";

impl AwsError {
    /// Returns the service's error code, if the service answered.
    pub(crate) fn code(&self) -> Option<&str> {
        match &self.answer {
            Answer::Service { code, .. } => Some(code),
            _ => None,
        }
    }

    /// Returns the HTTP status, if the service answered.
    pub(crate) fn status(&self) -> Option<u16> {
        match &self.answer {
            Answer::Service { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Returns the region of the bucket, if S3 named it.
    pub(crate) fn bucket_region(&self) -> Option<&str> {
        match &self.answer {
            Answer::Service { bucket_region, .. } => bucket_region.as_deref(),
            _ => None,
        }
    }

    /// Returns whether the service answered that the resource, or one that it is a part of, does not exist.
    pub(crate) fn is_not_found(&self) -> bool {
        let names = ["NotFound", "NoSuch", "NonExistent", "DoesNotExist"];
        self.status() == Some(404) || self.code().is_some_and(|code| names.iter().any(|name| code.contains(name)))
    }

    /// Returns whether the service denied the caller access.
    pub(crate) fn is_refusal(&self) -> bool {
        self.status() == Some(403) || self.code().is_some_and(|code| code.starts_with("AccessDenied"))
    }

    /// Returns whether the service answered with the code `wanted` and a message that contains `text`. For the few
    /// answers that AWS distinguishes by their text alone; each caller names its source.
    pub(crate) fn says(&self, wanted: &str, text: &str) -> bool {
        matches!(&self.answer, Answer::Service { code, message, .. } if code == wanted && message.contains(text))
    }

    /// Returns whether DynamoDB answered that the table has no such index, which it reports as an invalid request.
    pub(crate) fn is_missing_index(&self) -> bool {
        self.says("ValidationException", "does not have the specified index")
    }

    /// Returns the call and the code of its answer, without AWS's message, which names the caller.
    pub(crate) fn short(&self) -> String {
        match &self.answer {
            Answer::Service { status, code, .. } => format!("{} answered {status} {}", self.call, printable(code)),
            _ => format!("{} failed", self.call),
        }
    }

    /// Converts the failure into the user-facing error. `doing` continues "failed to".
    pub(crate) fn while_doing(&self, doing: impl fmt::Display) -> Error {
        let kind = match &self.answer {
            Answer::TimedOut => ErrorKind::Timeout,
            Answer::Service { .. } | Answer::Credentials { .. } | Answer::Unreachable(_) | Answer::Unclear(_) => {
                ErrorKind::Aws
            }
        };
        let (short, long) = (self.short(), self.to_string());
        // If the long form continues the short one, the rest, which may name the caller, becomes the detail.
        let (message, detail) = match long.strip_prefix(&short) {
            Some(rest) => (format!("failed to {doing}: {short}"), rest.to_owned()),
            None => (format!("failed to {doing}: {long}"), String::new()),
        };
        Error::new(kind, message, self.remedy()).with_detail(detail)
    }

    /// Returns the help text.
    pub(crate) fn remedy(&self) -> String {
        match &self.answer {
            Answer::Credentials { profile, causes } => credentials::help(causes, profile),
            Answer::Unreachable(_) => "check the network, pipeline.region and AWS_ENDPOINT_URL".to_owned(),
            Answer::TimedOut => "check the network and AWS_ENDPOINT_URL, then run the command again".to_owned(),
            Answer::Unclear(_) => "check that AWS_ENDPOINT_URL is the address of AWS or of a local AWS".to_owned(),
            // Services other than S3 report clock skew by the message alone.
            Answer::Service { message, .. }
                if message.contains("Signature expired") || message.contains("Signature not yet current") =>
            {
                CLOCK.to_owned()
            }
            Answer::Service { status, code, message, .. } => match code.as_str() {
                "ExpiredToken" | "ExpiredTokenException" | "RequestExpired" | "TokenRefreshRequired" => {
                    "the credentials have expired: sign in again, then run the command again to continue".to_owned()
                }
                "InvalidClientTokenId" | "UnrecognizedClientException" | "InvalidAccessKeyId" | "InvalidToken" | "AuthFailure" => {
                    "AWS does not know these credentials: check AWS_PROFILE or the AWS_* variables; or enable the region in \
                     the account, if it is not yet"
                        .to_owned()
                }
                "SignatureDoesNotMatch" | "InvalidSignatureException" => {
                    "check that the secret key belongs to the access key, and that no proxy changes requests".to_owned()
                }
                "RequestTimeTooSkewed" => CLOCK.to_owned(),
                "AuthorizationHeaderMalformed" | "PermanentRedirect" | "IllegalLocationConstraintException" => {
                    "the resource is in another region: check pipeline.region".to_owned()
                }
                "OptInRequired" | "InvalidRegion" => "enable the region in the account, or choose another".to_owned(),
                _ if self.is_refusal() => format!("allow the caller {}", denied_action(message, self.call)),
                _ if *status == 429 || *status >= 500 => "AWS is busy: run the command again to continue".to_owned(),
                _ => "run the command again (completed steps are not repeated); if the error persists, fix its cause"
                    .to_owned(),
            },
        }
    }
}

impl fmt::Display for AwsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let call = self.call;
        match &self.answer {
            Answer::Service { status, code, message, request_id, .. } => {
                write!(f, "{call} answered {status}")?;
                if *status < 300 {
                    f.write_str(", but the answer is truncated or not from AWS")?;
                }
                if !code.is_empty() {
                    write!(f, " {}", printable(code))?;
                }
                if !message.is_empty() {
                    write!(f, ": {}", printable(message))?;
                }
                match request_id {
                    Some(id) => write!(f, " (request {})", printable(id)),
                    None => Ok(()),
                }
            }
            Answer::Credentials { profile, causes } => {
                write!(f, "no AWS credentials were found, profile {profile}")?;
                causes.iter().try_for_each(|cause| write!(f, "\n  {cause}"))
            }
            Answer::Unreachable(why) => write!(f, "{call} could not be sent: {why}"),
            Answer::TimedOut => write!(
                f,
                "{call} got no answer in time (limits: {} s per attempt, {} s per call)",
                ATTEMPT.as_secs(),
                CALL.as_secs()
            ),
            Answer::Unclear(why) => write!(f, "{call} failed: {why}"),
        }
    }
}

impl StdError for AwsError {}

/// Returns the IAM action that a refusal of this call names. It may differ from the call: a transaction needs the
/// actions of its parts, and a creation with tags the action to tag. Some services write the action in small letters:
/// then the call's own spelling is returned.
pub(crate) fn denied_action<'a>(message: &'a str, call: &'a str) -> &'a str {
    let is_name = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    ["additional permission ", "not authorized to perform: "]
        .iter()
        .find_map(|before| message.split_once(before))
        .and_then(|(_, rest)| rest.trim_start_matches('"').split([' ', ',', ';', '"']).next())
        .filter(|action| action.split_once(':').is_some_and(|(service, name)| is_name(service) && is_name(name)))
        .filter(|action| !action.eq_ignore_ascii_case(call))
        .unwrap_or(call)
}

/// The conversion of the SDK's errors into [`AwsError`].
pub(crate) trait Call<T> {
    /// Converts the error and adds the name of the call to it.
    ///
    /// # Errors
    /// The failure of the call.
    fn call(self, call: &'static str) -> Result<T, AwsError>;
}

impl<T, E> Call<T> for Result<T, SdkError<E, HttpResponse>>
where
    E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
{
    fn call(self, call: &'static str) -> Result<T, AwsError> {
        self.map_err(|error| AwsError { call, answer: answer(error) })
    }
}

fn answer<E>(error: SdkError<E, HttpResponse>) -> Answer
where
    E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
{
    match error {
        SdkError::ServiceError(service) => {
            let meta = service.err().meta();
            Answer::Service {
                status: service.raw().status().as_u16(),
                code: meta.code().unwrap_or_default().to_owned(),
                message: meta.message().unwrap_or_default().to_owned(),
                request_id: request_id(service.raw()),
                bucket_region: service.raw().headers().get("x-amz-bucket-region").map(str::to_owned),
            }
        }
        SdkError::TimeoutError(_) => Answer::TimedOut,
        SdkError::DispatchFailure(ref failure) => {
            let timed_out = failure.is_timeout();
            let why = chain(&error);
            if is_about_credentials(&error) {
                no_credentials(&error)
            } else if timed_out {
                Answer::TimedOut
            } else {
                Answer::Unreachable(why)
            }
        }
        other if is_about_credentials(&other) => no_credentials(&other),
        other => Answer::Unclear(chain(&other)),
    }
}

fn no_credentials(error: &(dyn StdError + 'static)) -> Answer {
    Answer::Credentials { profile: credentials::profile(), causes: credentials::causes(error) }
}

fn request_id(response: &HttpResponse) -> Option<String> {
    let headers = response.headers();
    ["x-amzn-requestid", "x-amz-request-id"].into_iter().find_map(|name| headers.get(name)).map(str::to_owned)
}

fn sources<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

fn is_about_credentials(error: &(dyn StdError + 'static)) -> bool {
    sources(error).any(|cause| cause.downcast_ref::<CredentialsError>().is_some())
}

/// Joins the causes from the second on (the first is the SDK's own "dispatch failure"), without repetitions.
fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut causes: Vec<String> = Vec::new();
    for cause in sources(error).skip(1) {
        let text = printable(&cause.to_string());
        if !causes.iter().any(|earlier| earlier.contains(&text)) {
            causes.push(text);
        }
    }
    if causes.is_empty() { error.to_string() } else { causes.join(": ") }
}

/// Turns an error with one of `codes`, which mean *absent*, into `None`.
///
/// # Errors
/// Any failure with another code.
pub(crate) fn absent_on<T>(result: Result<T, AwsError>, codes: &[&str]) -> Result<Option<T>, AwsError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.code().is_some_and(|code| codes.contains(&code)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// An operation on one resource that failed. Its caller adds the resource's address with [`ResourceError::on`].
#[derive(Debug)]
pub(crate) enum ResourceError {
    /// A call failed.
    Call(Box<AwsError>),
    /// The resource that was to be created exists: a concurrent run created it, or an attempt whose answer was lost.
    AlreadyExists,
    /// Any other failure, complete with its context.
    Other(Box<Error>),
}

impl From<AwsError> for ResourceError {
    fn from(error: AwsError) -> Self {
        Self::Call(Box::new(error))
    }
}

impl From<Error> for ResourceError {
    fn from(error: Error) -> Self {
        Self::Other(Box::new(error))
    }
}

impl From<BuildError> for ResourceError {
    fn from(error: BuildError) -> Self {
        Error::from(error).into()
    }
}

/// The builders of the SDK fail only if a required member is missing, which would be a defect here.
impl From<BuildError> for Error {
    fn from(error: BuildError) -> Self {
        Self::internal("build a request", error)
    }
}

impl ResourceError {
    /// Adds the operation and the resource: `failed to read table x: ...`.
    pub(crate) fn on(self, verb: &str, address: &impl fmt::Display) -> Error {
        match self {
            Self::Call(source) => source.while_doing(format_args!("{verb} {address}")),
            Self::AlreadyExists => Error::conflict(
                format!("failed to {verb} {address}: another process is creating and deleting it concurrently"),
                "wait for the other process to finish, then run the command again",
            ),
            Self::Other(error) => *error,
        }
    }
}
