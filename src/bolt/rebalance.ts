/** Joins nodes that deletions have left too small, before a commit spills them (reference: bbolt node.go, rebalance). */
import { isError } from "../model/errors.ts";
import { inodeAt, type Node, removeChild, removeEntry, searchNode } from "./node.ts";
import { PAGE_HEADER_SIZE } from "./page.ts";
import type { Tree } from "./tree.ts";

const MIN_LEAF_KEYS = 1;
const MIN_BRANCH_KEYS = 2;

export function rebalance(tree: Tree): void {
  for (const node of tree.nodes.values()) rebalanceNode(tree, node);
  for (const subtree of tree.subtrees.values()) rebalance(subtree);
}

function rebalanceNode(tree: Tree, node: Node): void {
  if (!node.unbalanced) return;
  node.unbalanced = false;
  const threshold = (tree.tx.pageSize * tree.fillPercent) / 2;
  const minKeys = node.isLeaf ? MIN_LEAF_KEYS : MIN_BRANCH_KEYS;
  if (node.sizeBytes > threshold && node.entries.length > minKeys) return;
  const parent = node.parent;
  if (parent === undefined) {
    collapseRoot(tree, node);
  } else if (node.entries.length === 0) {
    dropNode(tree, parent, node);
    rebalanceNode(tree, parent);
  } else {
    merge(tree, parent, node);
  }
}

/** A root branch with one child becomes that child; one with none becomes an empty leaf. */
function collapseRoot(tree: Tree, root: Node): void {
  if (root.isLeaf || root.entries.length > 1) return;
  if (root.entries.length === 0) {
    root.isLeaf = true;
    root.source = undefined;
    root.sizeBytes = PAGE_HEADER_SIZE;
    return;
  }
  const child = readable(() => tree.childNode(root, 0));
  if (child === undefined) return;
  root.isLeaf = child.isLeaf;
  root.source = child.source;
  root.entries = child.entries;
  root.sizeBytes = child.sizeBytes;
  root.children = child.children;
  root.dirty = true;
  for (const grandchild of root.children) grandchild.parent = root;
  freeNode(tree, child);
}

function dropNode(tree: Tree, parent: Node, node: Node): void {
  removeEntry(parent, node.separator);
  removeChild(parent, node);
  parent.unbalanced = true;
  freeNode(tree, node);
}

/** Moves a small node's entries to its left neighbour, or the right neighbour's to it when it is the first. */
function merge(tree: Tree, parent: Node, node: Node): void {
  if (parent.entries.length < 2) {
    // The only child has nobody to join: the parent has too few keys itself.
    parent.unbalanced = true;
    rebalanceNode(tree, parent);
    return;
  }
  const index = searchNode(parent, node.separator);
  if (index < 0) throw new Error(`page ${node.pgid} is missing in its parent`);
  const other = readable(() => tree.childNode(parent, index === 0 ? 1 : index - 1));
  if (other === undefined) return;
  const [left, right] = index === 0 ? [node, other] : [other, node];
  for (const child of right.children) {
    child.parent = left;
    left.children.push(child);
  }
  for (let i = 0; i < right.entries.length; i++) left.entries.push(inodeAt(right, i));
  left.sizeBytes += right.sizeBytes - PAGE_HEADER_SIZE;
  left.dirty = true;
  right.children = [];
  dropNode(tree, parent, right);
  rebalanceNode(tree, parent);
}

function freeNode(tree: Tree, node: Node): void {
  if (node.pgid === 0) return;
  tree.nodes.delete(node.pgid);
  tree.tx.free(node.pgid, node.pageCount);
  node.pgid = 0;
}

/** A damaged neighbour is left alone: a small page is no fault, and the change at hand must not fail for it. */
function readable(load: () => Node): Node | undefined {
  try {
    return load();
  } catch (error) {
    if (isError(error, "DataLoss")) return undefined;
    throw error;
  }
}
