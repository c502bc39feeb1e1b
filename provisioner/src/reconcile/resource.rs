//! The contract of a resource, and the type erasure that lets a plan hold resources of every kind.
//!
//! # Expected flow
//! [`Resource::read`] returns the live state and [`Resource::diff`] the drift; [`Resource::create`],
//! [`Resource::update`] and [`Resource::delete`] reconcile it. A plan is built from the first two and shown before any
//! of the last three runs.
//!
//! # Guarantees
//! - Only the service's typed not-found means *absent*. A refusal, a throttle or an unclear answer is an error.
//! - `diff` is pure, and empty for a resource that is in sync.
//! - `create` and `update` may be killed between any two calls. A half-created resource is read as it is, and the next
//!   run completes it.
//! - Every name and ARN follows from the file, the account and the region, so a plan holds no unknowns.
//! - An unmanaged resource ([`Resource::ownership`]) is neither changed nor deleted, unless it is adopted.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::Serialize;

use super::diff::{Diff, SettingChange};
use super::ownership::Ownership;
pub(crate) use super::protection::Refusal;
use crate::aws::{Aws, AwsError, ResourceError, Wait};
use crate::error::Error;

/// A kind and a name: the identity of a resource within a pipeline.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub(crate) struct Address {
    /// [`Resource::NAME`].
    pub(crate) kind: &'static str,
    /// The resource's name on AWS.
    pub(crate) name: String,
}

impl Address {
    /// Returns the address of a resource of type `R`.
    pub(crate) fn of<R: Resource>(name: impl Into<String>) -> Self {
        Self { kind: R::NAME, name: name.into() }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// The IAM actions that a deployer needs on one ARN, by purpose.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct IamActions {
    /// The ARN, or a pattern of ARNs.
    pub(crate) resource: String,
    /// Needed to plan.
    pub(crate) read: &'static [&'static str],
    /// Needed to create the resource.
    pub(crate) create: &'static [&'static str],
    /// Needed to update the resource.
    pub(crate) update: &'static [&'static str],
    /// Needed to delete the resource.
    pub(crate) delete: &'static [&'static str],
    /// The condition under which the actions are needed, if it is narrower than every call.
    pub(crate) condition: Option<Condition>,
}

/// A condition of a policy statement: a context key equals a value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Condition {
    /// The context key.
    pub(crate) key: &'static str,
    /// The value of each call.
    pub(crate) value: String,
}

/// The context of a step: the clients, and the callbacks that report its progress.
pub(crate) struct StepContext<'a> {
    /// The clients.
    pub(crate) aws: &'a Aws,
    /// The resource of the step.
    pub(crate) address: &'a Address,
    /// Reports the condition that the step waits for, and for how long it has waited.
    pub(crate) on_wait: &'a (dyn Fn(&str, Duration) + Send + Sync),
    /// Reports how many of how many parts are done, in a step of many parts.
    pub(crate) on_progress: &'a (dyn Fn(u64, u64) + Send + Sync),
    /// Reports, before the end of a creation, that the resource exists: the steps that come after it
    /// ([`Resource::after`]) start.
    pub(crate) on_exists: &'a (dyn Fn() + Send + Sync),
}

impl StepContext<'_> {
    /// Returns a wait for the condition `what`, with a deadline in seconds.
    pub(crate) fn wait(&self, what: impl Into<String>, seconds: u64) -> Wait<'_> {
        Wait { what: what.into(), deadline: Duration::from_secs(seconds), on_wait: self.on_wait }
    }
}

/// A resource on AWS. The implementing type is the desired state of one such resource.
pub(crate) trait Resource: fmt::Debug + Send + Sync + Sized + 'static {
    /// The kind's name in plans, a term of AWS.
    const NAME: &'static str;
    /// True if a replacement would lose data.
    const HOLDS_DATA: bool = false;
    /// True if resources of this kind are created before those of other kinds, and deleted after them.
    const IS_FIRST: bool = false;
    /// The settings without which the pipeline does not work; `None` if it works without the resource.
    const ESSENTIAL: Option<&'static [&'static str]> = Some(&[]);
    /// The live state.
    type Live: fmt::Debug + Send + Sync;

    /// Returns the resource's name on AWS.
    fn name(&self) -> String;

    /// Returns the resource's ARN, or the ARN of the resource that it is a part of.
    fn arn(&self) -> String;

    /// Returns the IAM actions that a deployer needs.
    fn iam_actions(&self) -> Vec<IamActions>;

    /// Returns the resources whose creation must end before that of this one begins, and that are deleted after it.
    fn depends_on(&self) -> Vec<Address> {
        Vec::new()
    }

    /// Returns the resources that must exist before this one is created, and that are deleted after it. Their creation
    /// may go on meanwhile.
    fn after(&self) -> Vec<Address> {
        Vec::new()
    }

    /// Returns the resources that are changed before this one is changed, and deleted after it. Its creation does not
    /// wait for them.
    fn changes_after(&self) -> Vec<Address> {
        Vec::new()
    }

    /// Returns whether the resource exists. If it is a part of another resource, [`Resource::read`] may find only the
    /// other.
    fn exists(_live: &Self::Live) -> bool {
        true
    }

    /// Reads the live state, or `None` if the resource is absent.
    fn read(&self, aws: &Aws) -> impl Future<Output = Result<Option<Self::Live>, ResourceError>> + Send;

    /// Returns whether the resource is absent, by a call for which a deployer's policy needs no name. Asked only if
    /// [`Resource::read`] is refused.
    fn is_absent(&self, _aws: &Aws) -> impl Future<Output = Result<bool, ResourceError>> + Send {
        std::future::ready(Ok(false))
    }

    /// Returns the owner of the resource, by its ownership markers.
    fn ownership(&self, live: &Self::Live) -> Ownership;

    /// Returns whether the resource, which is owned, proves that this pipeline was applied before. Tags prove nothing:
    /// whoever may make a queue may tag it. Therefore the first resources are of a kind that only administrators make.
    fn proves_apply(&self, _live: &Self::Live) -> bool {
        Self::IS_FIRST
    }

    /// Returns whether AWS itself made the resource, so that its existence before the first apply is no surprise.
    fn is_made_by_aws(&self, _live: &Self::Live) -> bool {
        false
    }

    /// Returns whether its deletion loses data. If so, only `destroy --delete-data` deletes it.
    fn holds_data(&self, _live: &Self::Live) -> bool {
        Self::HOLDS_DATA
    }

    /// Returns the data that a deletion loses: `12 objects`. Asked only of a resource that holds data.
    fn data(&self, _aws: &Aws, _live: &Self::Live) -> impl Future<Output = Result<String, ResourceError>> + Send {
        std::future::ready(Ok(String::new()))
    }

    /// Returns a sentence with the commands to delete, by hand, a resource that holds data.
    fn manual_deletion(&self) -> String {
        String::new()
    }

    /// Compares every setting with the desired state; all settings differ if the resource is absent. Pure.
    fn compare(&self, live: Option<&Self::Live>) -> Diff;

    /// Returns the settings that differ from the desired state.
    fn diff(&self, live: Option<&Self::Live>) -> Vec<SettingChange> {
        self.compare(live).changes()
    }

    /// Returns a conflict if the resource cannot be updated in place.
    fn refusal(&self, _live: &Self::Live) -> Option<Refusal> {
        None
    }

    /// Returns faults that no change of this resource corrects, and with which the pipeline does not work.
    fn problems(&self, _live: &Self::Live) -> Vec<Refusal> {
        Vec::new()
    }

    /// Returns remarks on the live state that lead to no change.
    fn notes(&self, _live: &Self::Live) -> Vec<String> {
        Vec::new()
    }

    /// Creates the resource. After [`ResourceError::AlreadyExists`] it is read again and updated.
    fn create(&self, step: &StepContext<'_>) -> impl Future<Output = Result<(), ResourceError>> + Send;

    /// Applies `changes`, which are the [`Resource::diff`] of `live`.
    fn update(
        &self,
        step: &StepContext<'_>,
        live: &Self::Live,
        changes: &[SettingChange],
    ) -> impl Future<Output = Result<(), ResourceError>> + Send;

    /// Deletes the resource. Succeeds if it is already absent.
    fn delete(
        &self,
        step: &StepContext<'_>,
        live: &Self::Live,
    ) -> impl Future<Output = Result<(), ResourceError>> + Send;
}

/// A boxed future, so that futures of different types fit in one list.
pub(crate) type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The desired state of a resource of any kind.
pub(crate) trait Declared: Send + Sync {
    fn address(&self) -> &Address;
    /// Returns [`Resource::arn`].
    fn arn(&self) -> &str;
    /// Forwards to [`Resource::iam_actions`].
    fn iam_actions(&self) -> Vec<IamActions>;
    /// Forwards to [`Resource::ESSENTIAL`].
    fn essential(&self) -> Option<&'static [&'static str]>;
    /// Forwards to [`Resource::is_absent`]; an error means that it is not known.
    fn is_absent<'a>(self: Arc<Self>, aws: &'a Aws) -> Boxed<'a, bool>;
    /// Reads the live state.
    fn observe<'a>(self: Arc<Self>, aws: &'a Aws) -> Boxed<'a, Result<Box<dyn Observed>, Error>>;
}

/// The desired state of a resource of any kind beside its live state.
pub(crate) trait Observed: Send + Sync {
    fn address(&self) -> &Address;
    fn arn(&self) -> &str;
    /// Returns [`Resource::depends_on`], and [`Resource::changes_after`] if it exists.
    fn depends_on(&self) -> Vec<Address>;
    /// Forwards to [`Resource::after`].
    fn after(&self) -> Vec<Address>;
    /// Forwards to [`Resource::iam_actions`].
    fn iam_actions(&self) -> Vec<IamActions>;
    /// Returns its owner, or `None` if it is absent.
    fn ownership(&self) -> Option<Ownership>;
    /// Forwards to [`Resource::IS_FIRST`].
    fn is_first(&self) -> bool;
    /// Forwards to [`Resource::proves_apply`]; false if it is absent or not owned.
    fn proves_apply(&self) -> bool;
    /// Forwards to [`Resource::is_made_by_aws`]; false if it is absent.
    fn is_made_by_aws(&self) -> bool;
    /// Returns [`Resource::holds_data`], or [`Resource::HOLDS_DATA`] if it is absent.
    fn holds_data(&self) -> bool;
    /// Forwards to [`Resource::data`]; empty if the resource is absent.
    fn data<'a>(&'a self, aws: &'a Aws) -> Boxed<'a, Result<String, Error>>;
    /// Forwards to [`Resource::manual_deletion`].
    fn manual_deletion(&self) -> String;
    /// Returns the drift. The first call compares, and needs the code of the functions.
    fn changes(&self) -> &[SettingChange];
    /// Forwards to [`Resource::refusal`].
    fn refusal(&self) -> Option<Refusal>;
    /// Forwards to [`Resource::problems`].
    fn problems(&self) -> Vec<Refusal>;
    /// Returns [`Resource::notes`], and the notes on protection that is kept.
    fn notes(&self) -> Vec<String>;
    /// Creates the resource if it is absent, and updates it otherwise.
    fn create_or_update<'a>(&'a self, step: &'a StepContext<'a>) -> Boxed<'a, Result<(), Error>>;
    /// Deletes the resource.
    fn delete<'a>(&'a self, step: &'a StepContext<'a>) -> Boxed<'a, Result<(), Error>>;

    fn exists(&self) -> bool {
        self.ownership().is_some()
    }
}

struct DeclaredResource<R> {
    desired: R,
    address: Address,
    arn: String,
}

/// The changes, the notes on what is kept, and the conflict that a comparison found.
type Compared = (Vec<SettingChange>, Vec<String>, Option<Refusal>);

struct ObservedResource<R: Resource> {
    declared: Arc<DeclaredResource<R>>,
    live: Option<R::Live>,
    /// Filled when it is first asked for: the code of the functions is loaded while resources are read.
    compared: OnceLock<Compared>,
}

/// Erases the type of a desired resource.
pub(crate) fn declare<R: Resource>(desired: R) -> Arc<dyn Declared> {
    let (address, arn) = (Address::of::<R>(desired.name()), desired.arn());
    Arc::new(DeclaredResource { desired, address, arn })
}

impl<R: Resource> Declared for DeclaredResource<R> {
    fn address(&self) -> &Address {
        &self.address
    }

    fn arn(&self) -> &str {
        &self.arn
    }

    fn iam_actions(&self) -> Vec<IamActions> {
        self.desired.iam_actions()
    }

    fn essential(&self) -> Option<&'static [&'static str]> {
        R::ESSENTIAL
    }

    fn is_absent<'a>(self: Arc<Self>, aws: &'a Aws) -> Boxed<'a, bool> {
        Box::pin(async move { self.desired.is_absent(aws).await.unwrap_or(false) })
    }

    fn observe<'a>(self: Arc<Self>, aws: &'a Aws) -> Boxed<'a, Result<Box<dyn Observed>, Error>> {
        Box::pin(async move {
            let mut read = self.desired.read(aws).await;
            // If a concurrent run deletes the resource, one call finds it and the next one answers not-found or, for
            // its tags, access denied. The second read finds it absent or is refused again.
            if matches!(&read, Err(ResourceError::Call(error)) if error.is_not_found() || error.is_refusal()) {
                read = self.desired.read(aws).await;
            }
            let live = read.map_err(|error| error.on("read", &self.address))?;
            Ok(Box::new(ObservedResource { declared: self, live, compared: OnceLock::new() }) as Box<dyn Observed>)
        })
    }
}

/// Updates a resource that appeared after it was read, by the rules of a plan: conflicts are refused.
async fn update_existing<R: Resource>(desired: &R, step: &StepContext<'_>) -> Result<(), ResourceError> {
    let live = desired.read(step.aws).await?.ok_or(ResourceError::AlreadyExists)?;
    let conflict = |Refusal { why, help }| Error::conflict(format!("{} {why}", step.address), help);
    if desired.ownership(&live) != Ownership::Owned {
        let help = "run `provisioner plan`, which shows its owner";
        let refusal = Refusal::new("appeared during this run and is unmanaged", help);
        return Err(conflict(refusal).into());
    }
    if let Some(refusal) = desired.refusal(&live) {
        return Err(conflict(refusal).into());
    }
    let changes = desired.diff(Some(&live));
    desired.update(step, &live, &changes).await
}

/// Returns whether AWS refused because of the resource's state, or of a concurrent call.
fn is_conflict(error: &AwsError) -> bool {
    let codes = [
        "Conflict",
        "InUse",
        "ConcurrentModification",
        "OperationAborted",
        "PreconditionFailed",
        "ValidationException",
    ];
    matches!(error.status(), Some(409 | 412))
        || error.code().is_some_and(|code| codes.iter().any(|conflict| code.contains(conflict)))
}

/// Returns whether the resource is in sync now.
async fn is_in_sync<R: Resource>(desired: &R, step: &StepContext<'_>) -> bool {
    match desired.read(step.aws).await {
        Ok(Some(live)) => {
            R::exists(&live) && desired.ownership(&live) == Ownership::Owned && desired.diff(Some(&live)).is_empty()
        }
        Ok(None) | Err(_) => false,
    }
}

impl<R: Resource> ObservedResource<R> {
    fn existing(&self) -> Option<&R::Live> {
        self.live.as_ref().filter(|live| R::exists(live))
    }

    fn compared(&self) -> &Compared {
        self.compared.get_or_init(|| self.declared.desired.compare(self.existing()).into_parts())
    }
}

impl<R: Resource> Observed for ObservedResource<R> {
    fn address(&self) -> &Address {
        &self.declared.address
    }

    fn arn(&self) -> &str {
        &self.declared.arn
    }

    fn depends_on(&self) -> Vec<Address> {
        let desired = &self.declared.desired;
        let mut all = desired.depends_on();
        if self.exists() {
            all.extend(desired.changes_after());
        }
        all
    }

    fn after(&self) -> Vec<Address> {
        self.declared.desired.after()
    }

    fn iam_actions(&self) -> Vec<IamActions> {
        self.declared.desired.iam_actions()
    }

    fn ownership(&self) -> Option<Ownership> {
        self.existing().map(|live| self.declared.desired.ownership(live))
    }

    fn is_first(&self) -> bool {
        R::IS_FIRST
    }

    fn proves_apply(&self) -> bool {
        let desired = &self.declared.desired;
        self.existing().is_some_and(|live| desired.ownership(live) == Ownership::Owned && desired.proves_apply(live))
    }

    fn is_made_by_aws(&self) -> bool {
        self.existing().is_some_and(|live| self.declared.desired.is_made_by_aws(live))
    }

    fn holds_data(&self) -> bool {
        self.existing().map_or(R::HOLDS_DATA, |live| self.declared.desired.holds_data(live))
    }

    fn data<'a>(&'a self, aws: &'a Aws) -> Boxed<'a, Result<String, Error>> {
        let DeclaredResource { desired, address, .. } = self.declared.as_ref();
        Box::pin(async move {
            match self.existing() {
                None => Ok(String::new()),
                Some(live) => desired.data(aws, live).await.map_err(|error| error.on("count the data of", address)),
            }
        })
    }

    fn manual_deletion(&self) -> String {
        self.declared.desired.manual_deletion()
    }

    fn changes(&self) -> &[SettingChange] {
        let (changes, ..) = self.compared();
        changes
    }

    fn refusal(&self) -> Option<Refusal> {
        let refusal = self.live.as_ref().and_then(|live| self.declared.desired.refusal(live));
        let (.., conflict) = self.compared();
        refusal.or_else(|| conflict.clone())
    }

    fn problems(&self) -> Vec<Refusal> {
        self.live.as_ref().map_or_else(Vec::new, |live| self.declared.desired.problems(live))
    }

    fn notes(&self) -> Vec<String> {
        let notes = self.live.as_ref().map_or_else(Vec::new, |live| self.declared.desired.notes(live));
        let (_, kept, _) = self.compared();
        notes.into_iter().chain(kept.iter().cloned()).collect()
    }

    fn create_or_update<'a>(&'a self, step: &'a StepContext<'a>) -> Boxed<'a, Result<(), Error>> {
        let DeclaredResource { desired, address, .. } = self.declared.as_ref();
        Box::pin(async move {
            let (verb, result) = match self.existing() {
                None => match desired.create(step).await {
                    Err(ResourceError::AlreadyExists) => ("update", update_existing(desired, step).await),
                    result => ("create", result),
                },
                Some(live) => ("update", desired.update(step, live, self.changes()).await),
            };
            match result {
                // A concurrent run may have made the same change, and AWS refuses to make it twice.
                Err(ResourceError::Call(error)) if is_conflict(&error) && is_in_sync(desired, step).await => Ok(()),
                result => result.map_err(|error| error.on(verb, address)),
            }
        })
    }

    fn delete<'a>(&'a self, step: &'a StepContext<'a>) -> Boxed<'a, Result<(), Error>> {
        let DeclaredResource { desired, address, .. } = self.declared.as_ref();
        Box::pin(async move {
            match self.existing() {
                None => Ok(()),
                Some(live) => desired.delete(step, live).await.map_err(|error| error.on("delete", address)),
            }
        })
    }
}
