//! Merkle paths from the coinbase to the root, and whole trees.

use sha2::{Digest, Sha256};

use crate::hash::{MerkleNode, Txid, finish_double};

/// Steps of the longest path: a block of 4 MWU has fewer than 2^17 transactions.
pub const MERKLE_PATH_MAX: usize = 17;

fn parent(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    finish_double(Sha256::new_with_prefix(left).chain_update(right))
}

/// The root above the coinbase `leaf` along `path`, whose nodes all stand to the right.
pub fn root(leaf: Txid, path: &[MerkleNode]) -> MerkleNode {
    MerkleNode(path.iter().fold(leaf.0, |left, right| parent(&left, &right.0)))
}

/// The path of leaf 0 in a tree whose other leaves are `others`, in order.
///
/// The coinbase itself need not be known. An odd level repeats its last node, as in Bitcoin.
pub fn path_of_first(others: &[[u8; 32]]) -> Vec<MerkleNode> {
    let mut path = Vec::with_capacity(MERKLE_PATH_MAX);
    // Of each level, all but its first node, which depends on the coinbase.
    let mut level: Vec<[u8; 32]> = others.to_vec();
    while let Some((sibling, rest)) = level.split_first() {
        path.push(MerkleNode(*sibling));
        level =
            rest.chunks(2).map(|pair| parent(&pair[0], pair.get(1).unwrap_or(&pair[0]))).collect();
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::hashes::Hash as _;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn same_as_the_whole_tree(leaves in prop::collection::vec(any::<[u8; 32]>(), 1..40)) {
            let whole = bitcoin::merkle_tree::calculate_root(
                leaves.iter().map(|leaf| bitcoin::TxMerkleNode::from_byte_array(*leaf)),
            );
            let path = path_of_first(&leaves[1..]);
            let ours = root(Txid(leaves[0]), &path);
            prop_assert_eq!(Some(ours.0), whole.map(|root| root.to_byte_array()));
        }
    }
}
