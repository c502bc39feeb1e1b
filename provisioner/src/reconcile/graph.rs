//! The order in which steps may run: pure, and knows nothing of AWS.

use std::collections::HashMap;
use std::hash::Hash;

/// A step of the walk.
pub(crate) struct Node<'a, Id> {
    /// What identifies it.
    pub(crate) id: &'a Id,
    /// What it needs; what is not among the nodes is taken as there.
    pub(crate) depends_on: &'a [Id],
    /// Whether it takes its resource away. Then what needs it goes first.
    pub(crate) deletes: bool,
}

/// Which steps wait for which.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Graph {
    /// For each step, how many it waits for.
    waits_for: Vec<usize>,
    /// For each step, those that wait for it.
    releases: Vec<Vec<usize>>,
}

impl Graph {
    /// Orders the steps. A step that makes waits for those that make what it needs; a step that deletes waits for
    /// those that delete what needs it, and for those that make what it names.
    pub(crate) fn new<Id: Eq + Hash>(nodes: &[Node<'_, Id>]) -> Self {
        let index: HashMap<&Id, usize> = nodes.iter().enumerate().map(|(i, node)| (node.id, i)).collect();
        let mut graph = Self { waits_for: vec![0; nodes.len()], releases: vec![Vec::new(); nodes.len()] };
        for (dependent, node) in nodes.iter().enumerate() {
            for need in node.depends_on {
                let Some(&needed) = index.get(need) else {
                    continue;
                };
                let (first, then) = match (nodes[needed].deletes, node.deletes) {
                    (false, false) => (needed, dependent),
                    (true, true) => (dependent, needed),
                    // What goes waits for what takes its account.
                    (false, true) => (needed, dependent),
                    // What comes needs nothing that goes.
                    (true, false) => continue,
                };
                graph.waits_for[then] += 1;
                graph.releases[first].push(then);
            }
        }
        graph
    }

    /// The steps that wait for nothing.
    pub(crate) fn ready(&self) -> Vec<usize> {
        (0..self.waits_for.len()).filter(|&step| self.waits_for[step] == 0).collect()
    }

    /// Marks a step as done and returns those that need wait no longer.
    pub(crate) fn done(&mut self, step: usize) -> Vec<usize> {
        let released = std::mem::take(&mut self.releases[step]);
        released
            .into_iter()
            .filter(|&next| {
                self.waits_for[next] -= 1;
                self.waits_for[next] == 0
            })
            .collect()
    }

    /// Marks a step as failed and returns all that can no longer run, near ones first.
    pub(crate) fn failed(&mut self, step: usize) -> Vec<usize> {
        let mut lost = Vec::new();
        let mut open = std::mem::take(&mut self.releases[step]);
        while !open.is_empty() {
            let mut next = Vec::new();
            for step in open {
                if !lost.contains(&step) {
                    lost.push(step);
                    next.append(&mut self.releases[step]);
                }
            }
            open = next;
        }
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(nodes: &[(&'static str, &[&'static str], bool)]) -> Graph {
        let nodes: Vec<Node<'_, &str>> =
            nodes.iter().map(|(id, depends_on, deletes)| Node { id, depends_on, deletes: *deletes }).collect();
        Graph::new(&nodes)
    }

    #[test]
    fn what_is_needed_is_made_first() {
        let mut graph = graph(&[("function", &["role"], false), ("role", &[], false)]);
        assert_eq!(graph.ready(), [1]);
        assert_eq!(graph.done(1), [0]);
    }

    #[test]
    fn what_is_needed_is_deleted_last() {
        let mut graph = graph(&[("function", &["role"], true), ("role", &[], true)]);
        assert_eq!(graph.ready(), [0]);
        assert_eq!(graph.done(0), [1]);
    }

    #[test]
    fn a_step_waits_for_all_that_it_needs() {
        let mut graph = graph(&[("a", &[], false), ("b", &[], false), ("c", &["a", "b"], false)]);
        assert_eq!(graph.ready(), [0, 1]);
        assert!(graph.done(0).is_empty());
        assert_eq!(graph.done(1), [2]);
    }

    #[test]
    fn what_goes_waits_for_what_takes_its_place() {
        let mut graph = graph(&[("new", &[], false), ("old", &["new"], true)]);
        assert_eq!(graph.ready(), [0]);
        assert_eq!(graph.done(0), [1]);
    }

    #[test]
    fn what_is_not_in_the_plan_is_there_already() {
        assert_eq!(graph(&[("function", &["role"], false)]).ready(), [0]);
    }

    #[test]
    fn a_failure_loses_what_depends_on_it_and_nothing_else() {
        let mut graph = graph(&[("a", &[], false), ("b", &["a"], false), ("c", &["b"], false), ("d", &[], false)]);
        assert_eq!(graph.failed(0), [1, 2]);
        assert_eq!(graph.ready(), [0, 3]);
    }
}
