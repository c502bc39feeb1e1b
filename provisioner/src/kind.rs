//! The contract that every kind of resource keeps, and the adapter that lets the plan hold them side by side.
//!
//! # Expected flow
//! [`Kind::declared`] says what there should be; [`Kind::read`] finds what there is; [`Kind::diff`] says what differs;
//! [`Kind::create`], [`Kind::update`] and [`Kind::delete`] change it. The plan is made of the first three and shown
//! before any of the last three runs.
//!
//! # Guarantees
//! - *Absent* is only what the service calls not found. A refusal, a throttle or an unclear answer is an error.
//! - `diff` is pure, and of a resource that is as declared it is empty.
//! - `create` and `update` may be ended between any two calls. A half-made resource is read as it is, and the next
//!   run completes it.
//! - Every name and ARN follows from the file, the account and the region, so a plan holds no unknowns.
//! - What is not the pipeline's own ([`Kind::owner`]) is neither changed nor deleted, unless it is adopted.

use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::artifact::Artifact;
use crate::aws::{Aws, AwsError, Place, Waiting};
use crate::change::Change;
use crate::config::Pipeline;
use crate::error::{Error, Fault};
use crate::owner::Owner;

/// A kind and a name: what identifies a resource within a pipeline.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Address {
    /// [`Kind::NAME`].
    pub kind: &'static str,
    /// The resource's name on AWS.
    pub name: String,
}

impl Address {
    /// The address of a resource of kind `K`.
    pub fn of<K: Kind>(name: impl Into<String>) -> Self {
        Self { kind: K::NAME, name: name.into() }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// All that a declaration can depend on.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    /// The checked file.
    pub pipeline: &'a Pipeline,
    /// Account and region.
    pub place: &'a Place,
    /// The function's code; absent where it does not matter, as for destroy.
    pub artifact: Option<&'a Arc<Artifact>>,
}

/// Why something is not done, and the way to do it by hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// What is in the way; reads on after the resource's address: `is not this pipeline's`.
    pub why: String,
    /// What to do about it.
    pub help: String,
}

impl Refusal {
    /// A reason and a way out.
    pub fn new(why: impl Into<String>, help: impl Into<String>) -> Self {
        Self { why: why.into(), help: help.into() }
    }
}

/// The IAM actions that a deployer needs on one ARN, by what they are needed for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rights {
    /// The ARN, or a pattern of ARNs.
    pub resource: String,
    /// To plan.
    pub read: &'static [&'static str],
    /// To make it where it is not.
    pub create: &'static [&'static str],
    /// To make up for a difference.
    pub update: &'static [&'static str],
    /// To take it away.
    pub delete: &'static [&'static str],
}

/// What a step has at hand: the clients, and a way to say what it waits for.
pub struct Step<'a> {
    /// The clients.
    pub aws: &'a Aws,
    /// The resource that is worked on.
    pub address: &'a Address,
    /// Told what is waited for and since when.
    pub tell: &'a (dyn Fn(&str, Duration) + Send + Sync),
    /// Told how many of how many parts are done, where a step has many.
    pub count: &'a (dyn Fn(u64, u64) + Send + Sync),
}

impl Step<'_> {
    /// Something to wait for, up to a deadline in seconds.
    #[must_use]
    pub fn waiting(&self, what: impl Into<String>, seconds: u64) -> Waiting<'_> {
        Waiting { what: what.into(), deadline: Duration::from_secs(seconds), tell: self.tell }
    }
}

/// One kind of resource. The implementing type is the declaration of one such resource.
pub trait Kind: fmt::Debug + Send + Sync + Sized + 'static {
    /// The kind's name in plans, a term of AWS's.
    const NAME: &'static str;
    /// Whether a new one in its place would lose data.
    const HOLDS_DATA: bool = false;
    /// What is read from AWS.
    type Live: fmt::Debug + Send + Sync;

    /// The resources of this kind that the file declares.
    fn declared(scope: &Scope<'_>) -> Vec<Self>;

    /// The name of the resource of this kind that `arn` is, or that belongs to what `arn` is; none for other kinds'
    /// ARNs. With [`Kind::called`] this is how what is no longer declared is found.
    fn name_in(_arn: &str) -> Option<String> {
        None
    }

    /// What the file would declare if the resource were called `name`.
    fn called(_scope: &Scope<'_>, _name: &str) -> Option<Self> {
        None
    }

    /// The resource's name on AWS.
    fn name(&self) -> String;

    /// Its ARN, or that of the resource which it is a part of.
    fn arn(&self) -> String;

    /// What a deployer must be allowed to do.
    fn rights(&self) -> Vec<Rights>;

    /// What must be there before this, and must go after it.
    fn needs(&self) -> Vec<Address> {
        Vec::new()
    }

    /// Whether what was read is there. Where it is a part of something, there may be only the something.
    fn is_there(_live: &Self::Live) -> bool {
        true
    }

    /// What is there, or nothing.
    fn read(&self, aws: &Aws) -> impl Future<Output = Result<Option<Self::Live>, Fault>> + Send;

    /// Whose it is.
    fn owner(&self, live: &Self::Live) -> Owner;

    /// Whether deleting it loses data: then only `destroy --delete-data` does.
    fn holds_data(&self, _live: &Self::Live) -> bool {
        Self::HOLDS_DATA
    }

    /// How a person deletes it, where it holds data: a sentence.
    fn delete_by_hand(&self) -> String {
        String::new()
    }

    /// What differs; of nothing, everything. Pure.
    fn diff(&self, live: Option<&Self::Live>) -> Vec<Change>;

    /// Why the difference cannot be made up for in place, where it cannot.
    fn refusal(&self, _live: &Self::Live) -> Option<Refusal> {
        None
    }

    /// What a person should know of what is there, though nothing will be done about it.
    fn notes(&self, _live: &Self::Live) -> Vec<String> {
        Vec::new()
    }

    /// Makes what is not there. Where it turns out to be there, [`Fault::Exists`] has it read again and updated.
    fn create(&self, step: &Step<'_>) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Makes up for `changes`, which are the [`Kind::diff`] of `live`.
    fn update(
        &self,
        step: &Step<'_>,
        live: &Self::Live,
        changes: &[Change],
    ) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Takes it away; that it is gone already is success.
    fn delete(&self, step: &Step<'_>, live: &Self::Live) -> impl Future<Output = Result<(), Fault>> + Send;
}

/// A future that can be kept beside others.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A declared resource of any kind.
pub trait Resource: Send + Sync {
    /// Its address.
    fn address(&self) -> &Address;
    /// [`Kind::rights`].
    fn rights(&self) -> Vec<Rights>;
    /// Reads it.
    fn observe<'a>(self: Arc<Self>, aws: &'a Aws) -> Boxed<'a, Result<Box<dyn Observed>, Error>>;
}

/// A declared resource of any kind beside what there is of it.
pub trait Observed: Send + Sync {
    /// Its address.
    fn address(&self) -> &Address;
    /// Its ARN.
    fn arn(&self) -> &str;
    /// The addresses that it needs.
    fn needs(&self) -> &[Address];
    /// [`Kind::rights`].
    fn rights(&self) -> Vec<Rights>;
    /// Whose it is; nothing where it is not there.
    fn owner(&self) -> Option<Owner>;
    /// [`Kind::holds_data`]; of what is not there, [`Kind::HOLDS_DATA`].
    fn holds_data(&self) -> bool;
    /// [`Kind::delete_by_hand`].
    fn delete_by_hand(&self) -> String;
    /// What differs.
    fn changes(&self) -> &[Change];
    /// Why the difference cannot be made up for.
    fn refusal(&self) -> Option<Refusal>;
    /// [`Kind::notes`].
    fn notes(&self) -> Vec<String>;
    /// Makes it, or makes up for the difference.
    fn converge<'a>(&'a self, step: &'a Step<'a>) -> Boxed<'a, Result<(), Error>>;
    /// Takes it away.
    fn delete<'a>(&'a self, step: &'a Step<'a>) -> Boxed<'a, Result<(), Error>>;

    /// Whether it is there.
    fn exists(&self) -> bool {
        self.owner().is_some()
    }
}

struct Declared<K> {
    spec: K,
    address: Address,
    arn: String,
    needs: Vec<Address>,
}

struct Read<K: Kind> {
    declared: Arc<Declared<K>>,
    live: Option<K::Live>,
    changes: Vec<Change>,
}

fn erase<K: Kind>(spec: K) -> Arc<dyn Resource> {
    let (address, arn, needs) = (Address::of::<K>(spec.name()), spec.arn(), spec.needs());
    Arc::new(Declared { spec, address, arn, needs })
}

/// The declared resources of one kind, ready to stand beside those of others.
pub fn declare<K: Kind>(scope: &Scope<'_>) -> Vec<Arc<dyn Resource>> {
    K::declared(scope).into_iter().map(erase).collect()
}

/// The resources of one kind that are at these ARNs, or belong to what is there.
pub fn found<K: Kind>(scope: &Scope<'_>, arns: &[String]) -> Vec<Arc<dyn Resource>> {
    let names: BTreeSet<String> = arns.iter().filter_map(|arn| K::name_in(arn)).collect();
    names.iter().filter_map(|name| K::called(scope, name)).map(erase).collect()
}

impl<K: Kind> Resource for Declared<K> {
    fn address(&self) -> &Address {
        &self.address
    }

    fn rights(&self) -> Vec<Rights> {
        self.spec.rights()
    }

    fn observe<'a>(self: Arc<Self>, aws: &'a Aws) -> Boxed<'a, Result<Box<dyn Observed>, Error>> {
        Box::pin(async move {
            let mut read = self.spec.read(aws).await;
            // What another run deletes at this moment is there at one call and not at the next, which says so, or, as DynamoDB does
            // of tags, that nobody may ask. Reading again finds it gone, or is refused again.
            if matches!(&read, Err(Fault::Call(error)) if error.is_not_found() || error.is_refusal()) {
                read = self.spec.read(aws).await;
            }
            let live = read.map_err(|fault| fault.on("read", &self.address))?;
            let changes = self.spec.diff(live.as_ref().filter(|live| K::is_there(live)));
            Ok(Box::new(Read { declared: self, live, changes }) as Box<dyn Observed>)
        })
    }
}

/// Brings in line what appeared since it was read, on the terms of a plan: what may not be changed is refused.
async fn complete<K: Kind>(spec: &K, step: &Step<'_>) -> Result<(), Fault> {
    let live = spec.read(step.aws).await?.ok_or(Fault::Exists)?;
    let refused = |Refusal { why, help }| Error::Refused { what: format!("{} {why}", step.address), help };
    if spec.owner(&live) != Owner::Ours {
        return Err(refused(Refusal::new(
            "appeared while this ran, and is not this pipeline's",
            "run plan: it says whose it is",
        ))
        .into());
    }
    if let Some(refusal) = spec.refusal(&live) {
        return Err(refused(refusal).into());
    }
    let changes = spec.diff(Some(&live));
    spec.update(step, &live, &changes).await
}

/// Whether AWS refused because of what the resource is, or of another call at the same moment.
fn is_conflict(error: &AwsError) -> bool {
    let by_code = [
        "Conflict",
        "InUse",
        "ConcurrentModification",
        "OperationAborted",
        "PreconditionFailed",
        "ValidationException",
    ];
    matches!(error.status(), Some(409 | 412))
        || error.code().is_some_and(|code| by_code.iter().any(|c| code.contains(c)))
}

/// Whether there is nothing left to do.
async fn is_as_declared<K: Kind>(spec: &K, step: &Step<'_>) -> bool {
    match spec.read(step.aws).await {
        Ok(Some(live)) => K::is_there(&live) && spec.owner(&live) == Owner::Ours && spec.diff(Some(&live)).is_empty(),
        Ok(None) | Err(_) => false,
    }
}

impl<K: Kind> Read<K> {
    fn there(&self) -> Option<&K::Live> {
        self.live.as_ref().filter(|live| K::is_there(live))
    }
}

impl<K: Kind> Observed for Read<K> {
    fn address(&self) -> &Address {
        &self.declared.address
    }

    fn arn(&self) -> &str {
        &self.declared.arn
    }

    fn needs(&self) -> &[Address] {
        &self.declared.needs
    }

    fn rights(&self) -> Vec<Rights> {
        self.declared.spec.rights()
    }

    fn owner(&self) -> Option<Owner> {
        self.there().map(|live| self.declared.spec.owner(live))
    }

    fn holds_data(&self) -> bool {
        self.there().map_or(K::HOLDS_DATA, |live| self.declared.spec.holds_data(live))
    }

    fn delete_by_hand(&self) -> String {
        self.declared.spec.delete_by_hand()
    }

    fn changes(&self) -> &[Change] {
        &self.changes
    }

    fn refusal(&self) -> Option<Refusal> {
        self.live.as_ref().and_then(|live| self.declared.spec.refusal(live))
    }

    fn notes(&self) -> Vec<String> {
        self.live.as_ref().map_or_else(Vec::new, |live| self.declared.spec.notes(live))
    }

    fn converge<'a>(&'a self, step: &'a Step<'a>) -> Boxed<'a, Result<(), Error>> {
        let Declared { spec, address, .. } = self.declared.as_ref();
        Box::pin(async move {
            let (verb, result) = match self.there() {
                None => match spec.create(step).await {
                    Err(Fault::Exists) => ("update", complete(spec, step).await),
                    result => ("create", result),
                },
                Some(live) => ("update", spec.update(step, live, &self.changes).await),
            };
            match result {
                // A run beside this one may have done the same, and AWS refuses to do it twice.
                Err(Fault::Call(error)) if is_conflict(&error) && is_as_declared(spec, step).await => Ok(()),
                result => result.map_err(|fault| fault.on(verb, address)),
            }
        })
    }

    fn delete<'a>(&'a self, step: &'a Step<'a>) -> Boxed<'a, Result<(), Error>> {
        let Declared { spec, address, .. } = self.declared.as_ref();
        Box::pin(async move {
            match self.there() {
                None => Ok(()),
                Some(live) => spec.delete(step, live).await.map_err(|fault| fault.on("delete", address)),
            }
        })
    }
}
