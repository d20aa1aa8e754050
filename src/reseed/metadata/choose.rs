//! Which of the clusters in the metadata a group is.

use super::error::MetadataError;
use super::facts::{Cluster, ClusterType, Metadata};
use super::group::NewGroup;

/// The cluster of that name; else the only one, the one with most of the group's servers, or the
/// primary one of a ClusterSet, in that order.
pub(super) fn cluster<'a>(
    metadata: &'a Metadata,
    group: Option<&NewGroup>,
    wanted: Option<&str>,
) -> Result<&'a Cluster, MetadataError> {
    let groups: Vec<&Cluster> = metadata
        .clusters
        .iter()
        .filter(|cluster| cluster.cluster_type == ClusterType::Group)
        .collect();
    let names = || groups.iter().map(|cluster| cluster.name.clone()).collect();
    if let Some(wanted) = wanted {
        return groups
            .iter()
            .find(|cluster| cluster.name == wanted)
            .copied()
            .ok_or_else(|| MetadataError::NotFound {
                name: wanted.to_owned(),
                names: names(),
            });
    }
    match groups.as_slice() {
        [] => {
            return Err(match metadata.clusters.first() {
                Some(set) => MetadataError::ReplicaSet {
                    name: set.name.clone(),
                },
                None => MetadataError::NoCluster,
            });
        }
        [only] => return Ok(only),
        _ => {}
    }
    let known = group.and_then(|group| most_known(metadata, &groups, group));
    known
        .or_else(|| primary_of_set(metadata, &groups))
        .ok_or_else(|| MetadataError::Ambiguous { names: names() })
}

/// The one cluster that has more of the group's servers than any other.
fn most_known<'a>(
    metadata: &Metadata,
    groups: &[&'a Cluster],
    group: &NewGroup,
) -> Option<&'a Cluster> {
    let known = |cluster: &Cluster| {
        metadata
            .members(cluster)
            .filter(|instance| {
                group.members.iter().any(|member| {
                    instance.has_uuid(member.server_uuid)
                        || instance.classic_address() == Some(&member.address.to_string())
                })
            })
            .count()
    };
    let mut counts: Vec<(usize, &Cluster)> = groups
        .iter()
        .map(|cluster| (known(cluster), *cluster))
        .collect();
    counts.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
    match counts.as_slice() {
        [(best, cluster), (next, _), ..] if best > next => Some(cluster),
        _ => None,
    }
}

fn primary_of_set<'a>(metadata: &Metadata, groups: &[&'a Cluster]) -> Option<&'a Cluster> {
    let [set] = metadata.cluster_sets.as_slice() else {
        return None;
    };
    groups
        .iter()
        .find(|cluster| set.primary.as_deref() == Some(&cluster.id))
        .copied()
}
