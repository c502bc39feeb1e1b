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

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::artifact::Artifact;
use crate::aws::{Aws, Place, Waiting};
use crate::change::Change;
use crate::config::Pipeline;
use crate::error::{Error, Fault};

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

/// What a step has at hand: the clients, and a way to say what it waits for.
pub struct Step<'a> {
    /// The clients.
    pub aws: &'a Aws,
    /// The resource that is worked on.
    pub address: &'a Address,
    /// Told what is waited for and since when.
    pub tell: &'a (dyn Fn(&str, Duration) + Send + Sync),
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
    /// Whether deleting it loses data: then only `destroy --delete-data` does.
    const HOLDS_DATA: bool = false;
    /// What is read from AWS.
    type Live: fmt::Debug + Send + Sync;

    /// The resources of this kind that the file declares.
    fn declared(scope: &Scope<'_>) -> Vec<Self>;

    /// The resource's name on AWS.
    fn name(&self) -> String;

    /// What must be there before this, and must go after it.
    fn needs(&self) -> Vec<Address> {
        Vec::new()
    }

    /// What is there, or nothing.
    fn read(&self, aws: &Aws) -> impl Future<Output = Result<Option<Self::Live>, Fault>> + Send;

    /// What differs; of nothing, everything. Pure.
    fn diff(&self, live: Option<&Self::Live>) -> Vec<Change>;

    /// Why the difference cannot be made up for in place, where it cannot.
    fn refusal(&self, _live: &Self::Live) -> Option<Error> {
        None
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
    /// Reads it.
    fn observe<'a>(self: Arc<Self>, aws: &'a Aws) -> Boxed<'a, Result<Box<dyn Observed>, Error>>;
}

/// A declared resource of any kind beside what there is of it.
pub trait Observed: Send + Sync {
    /// Its address.
    fn address(&self) -> &Address;
    /// The addresses that it needs.
    fn needs(&self) -> &[Address];
    /// Whether it is there.
    fn exists(&self) -> bool;
    /// [`Kind::HOLDS_DATA`].
    fn holds_data(&self) -> bool;
    /// What differs.
    fn changes(&self) -> &[Change];
    /// Why the difference cannot be made up for.
    fn refusal(&self) -> Option<Error>;
    /// Makes it, or makes up for the difference.
    fn converge<'a>(&'a self, step: &'a Step<'a>) -> Boxed<'a, Result<(), Error>>;
    /// Takes it away.
    fn delete<'a>(&'a self, step: &'a Step<'a>) -> Boxed<'a, Result<(), Error>>;
}

struct Declared<K> {
    spec: K,
    address: Address,
    needs: Vec<Address>,
}

struct Read<K: Kind> {
    declared: Arc<Declared<K>>,
    live: Option<K::Live>,
    changes: Vec<Change>,
}

/// The declared resources of one kind, ready to stand beside those of others.
pub fn declare<K: Kind>(scope: &Scope<'_>) -> Vec<Arc<dyn Resource>> {
    K::declared(scope)
        .into_iter()
        .map(|spec| {
            let (address, needs) = (Address::of::<K>(spec.name()), spec.needs());
            Arc::new(Declared { spec, address, needs }) as Arc<dyn Resource>
        })
        .collect()
}

impl<K: Kind> Resource for Declared<K> {
    fn address(&self) -> &Address {
        &self.address
    }

    fn observe<'a>(self: Arc<Self>, aws: &'a Aws) -> Boxed<'a, Result<Box<dyn Observed>, Error>> {
        Box::pin(async move {
            let live = self.spec.read(aws).await.map_err(|fault| fault.on("read", &self.address))?;
            let changes = self.spec.diff(live.as_ref());
            Ok(Box::new(Read { declared: self, live, changes }) as Box<dyn Observed>)
        })
    }
}

/// Brings in line what appeared since it was read, on the terms of a plan: what may not be changed is refused.
async fn complete<K: Kind>(spec: &K, step: &Step<'_>) -> Result<(), Error> {
    let live = spec.read(step.aws).await.map_err(|fault| fault.on("read", step.address))?;
    let live = live.ok_or_else(|| Fault::Exists.on("create", step.address))?;
    if let Some(refusal) = spec.refusal(&live) {
        return Err(refusal);
    }
    let changes = spec.diff(Some(&live));
    spec.update(step, &live, &changes).await.map_err(|fault| fault.on("update", step.address))
}

impl<K: Kind> Observed for Read<K> {
    fn address(&self) -> &Address {
        &self.declared.address
    }

    fn needs(&self) -> &[Address] {
        &self.declared.needs
    }

    fn exists(&self) -> bool {
        self.live.is_some()
    }

    fn holds_data(&self) -> bool {
        K::HOLDS_DATA
    }

    fn changes(&self) -> &[Change] {
        &self.changes
    }

    fn refusal(&self) -> Option<Error> {
        self.live.as_ref().and_then(|live| self.declared.spec.refusal(live))
    }

    fn converge<'a>(&'a self, step: &'a Step<'a>) -> Boxed<'a, Result<(), Error>> {
        let Declared { spec, address, .. } = self.declared.as_ref();
        Box::pin(async move {
            match &self.live {
                None => match spec.create(step).await {
                    Err(Fault::Exists) => complete(spec, step).await,
                    result => result.map_err(|fault| fault.on("create", address)),
                },
                Some(live) => spec.update(step, live, &self.changes).await.map_err(|fault| fault.on("update", address)),
            }
        })
    }

    fn delete<'a>(&'a self, step: &'a Step<'a>) -> Boxed<'a, Result<(), Error>> {
        let Declared { spec, address, .. } = self.declared.as_ref();
        Box::pin(async move {
            match &self.live {
                None => Ok(()),
                Some(live) => spec.delete(step, live).await.map_err(|fault| fault.on("delete", address)),
            }
        })
    }
}
