//! The order in which steps may run. Pure, and independent of AWS.

use std::collections::HashMap;
use std::hash::Hash;

/// A step.
pub(crate) struct Node<'a, Id> {
    /// The identity of its resource.
    pub(crate) id: &'a Id,
    /// The resources that its resource depends on; those without a step are assumed to exist.
    pub(crate) depends_on: &'a [Id],
    /// The resources that must exist before its resource is created. Their steps may go on meanwhile.
    pub(crate) after: &'a [Id],
    /// True if the step deletes its resource. Its dependents are then deleted first.
    pub(crate) deletes: bool,
}

/// The dependencies between steps.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Graph {
    /// For each step, the number of steps that it waits for.
    waits_for: Vec<usize>,
    /// For each step, the steps that wait for its end.
    releases: Vec<Vec<usize>>,
    /// For each step, the steps that wait until its resource exists.
    admits: Vec<Vec<usize>>,
}

impl Graph {
    /// Orders the steps. A creation or update waits for the creations and updates of its dependencies. A deletion waits
    /// for the deletions of its dependents, and for the creations and updates of its dependencies. Only a creation that
    /// comes after another one waits for less than its end.
    pub(crate) fn new<Id: Eq + Hash>(nodes: &[Node<'_, Id>]) -> Self {
        let index: HashMap<&Id, usize> = nodes.iter().enumerate().map(|(i, node)| (node.id, i)).collect();
        let none = vec![Vec::new(); nodes.len()];
        let mut graph = Self { waits_for: vec![0; nodes.len()], releases: none.clone(), admits: none };
        for (dependent, node) in nodes.iter().enumerate() {
            let on_end = node.depends_on.iter().map(|dependency| (dependency, false));
            let on_existence = node.after.iter().map(|dependency| (dependency, true));
            for (dependency, is_early) in on_end.chain(on_existence) {
                let Some(&dependency) = index.get(dependency) else {
                    continue;
                };
                let (first, second) = match (nodes[dependency].deletes, node.deletes) {
                    (false, false) => (dependency, dependent),
                    (true, true) => (dependent, dependency),
                    // A deletion waits for the replacement.
                    (false, true) => (dependency, dependent),
                    // A creation does not depend on a resource that is to be deleted.
                    (true, false) => continue,
                };
                graph.waits_for[second] += 1;
                let creates = !nodes[first].deletes && !nodes[second].deletes;
                let waiting = if is_early && creates { &mut graph.admits } else { &mut graph.releases };
                waiting[first].push(second);
            }
        }
        graph
    }

    /// Returns the steps that can start immediately.
    pub(crate) fn ready(&self) -> Vec<usize> {
        (0..self.waits_for.len()).filter(|&step| self.waits_for[step] == 0).collect()
    }

    /// Marks the resource of a step as existing and returns the steps that are ready now.
    pub(crate) fn exists(&mut self, step: usize) -> Vec<usize> {
        let admitted = std::mem::take(&mut self.admits[step]);
        self.release(admitted)
    }

    /// Marks a step as done and returns the steps that are ready now.
    pub(crate) fn done(&mut self, step: usize) -> Vec<usize> {
        let released = self.dependents(step);
        self.release(released)
    }

    /// Takes the steps that still wait for a step.
    fn dependents(&mut self, step: usize) -> Vec<usize> {
        let mut dependents = std::mem::take(&mut self.admits[step]);
        dependents.append(&mut self.releases[step]);
        dependents
    }

    /// Ends one wait of each of these steps and returns those that wait for nothing else.
    fn release(&mut self, steps: Vec<usize>) -> Vec<usize> {
        steps
            .into_iter()
            .filter(|&next| {
                self.waits_for[next] -= 1;
                self.waits_for[next] == 0
            })
            .collect()
    }

    /// Marks a step as failed and returns the steps that can no longer run, direct dependents first.
    pub(crate) fn failed(&mut self, step: usize) -> Vec<usize> {
        let mut skipped = Vec::new();
        let mut dependents = self.dependents(step);
        while !dependents.is_empty() {
            let mut next = Vec::new();
            for step in dependents {
                if !skipped.contains(&step) {
                    skipped.push(step);
                    next.append(&mut self.dependents(step));
                }
            }
            dependents = next;
        }
        skipped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(nodes: &[(&'static str, &[&'static str], bool)]) -> Graph {
        let nodes: Vec<Node<'_, &str>> = nodes
            .iter()
            .map(|(id, depends_on, deletes)| Node { id, depends_on, after: &[], deletes: *deletes })
            .collect();
        Graph::new(&nodes)
    }

    /// Returns the graph of a role, and of a queue that comes after it.
    fn queue_after_role(deletes: bool) -> Graph {
        let role = Node { id: &"role", depends_on: &[], after: &[], deletes };
        let queue = Node { id: &"queue", depends_on: &[], after: &["role"], deletes };
        Graph::new(&[role, queue])
    }

    #[test]
    fn creation_after_another_waits_only_until_its_resource_exists() {
        let mut graph = queue_after_role(false);
        assert_eq!(graph.ready(), [0]);
        assert_eq!(graph.exists(0), [1]);
        assert!(graph.done(0).is_empty());

        let mut graph = queue_after_role(false);
        assert_eq!(graph.done(0), [1]);
        let mut graph = queue_after_role(false);
        assert_eq!(graph.failed(0), [1]);
        let mut graph = queue_after_role(false);
        assert_eq!(graph.exists(0), [1]);
        assert!(graph.failed(0).is_empty());
    }

    #[test]
    fn deletion_waits_for_the_end_of_those_that_come_after() {
        let mut graph = queue_after_role(true);
        assert_eq!(graph.ready(), [1]);
        assert!(graph.exists(1).is_empty());
        assert_eq!(graph.done(1), [0]);
    }

    #[test]
    fn dependency_is_created_first() {
        let mut graph = graph(&[("function", &["role"], false), ("role", &[], false)]);
        assert_eq!(graph.ready(), [1]);
        assert_eq!(graph.done(1), [0]);
    }

    #[test]
    fn dependency_is_deleted_last() {
        let mut graph = graph(&[("function", &["role"], true), ("role", &[], true)]);
        assert_eq!(graph.ready(), [0]);
        assert_eq!(graph.done(0), [1]);
    }

    #[test]
    fn step_waits_for_all_of_its_dependencies() {
        let mut graph = graph(&[("a", &[], false), ("b", &[], false), ("c", &["a", "b"], false)]);
        assert_eq!(graph.ready(), [0, 1]);
        assert!(graph.done(0).is_empty());
        assert_eq!(graph.done(1), [2]);
    }

    #[test]
    fn deletion_waits_for_the_replacement() {
        let mut graph = graph(&[("new", &[], false), ("old", &["new"], true)]);
        assert_eq!(graph.ready(), [0]);
        assert_eq!(graph.done(0), [1]);
    }

    #[test]
    fn dependency_outside_the_plan_is_not_awaited() {
        assert_eq!(graph(&[("function", &["role"], false)]).ready(), [0]);
    }

    #[test]
    fn failure_skips_its_dependents_only() {
        let mut graph = graph(&[("a", &[], false), ("b", &["a"], false), ("c", &["b"], false), ("d", &[], false)]);
        assert_eq!(graph.failed(0), [1, 2]);
        assert_eq!(graph.ready(), [0, 3]);
    }
}
