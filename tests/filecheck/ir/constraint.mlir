// RUN: forgec opt %s | filecheck %s

// CHECK: forge.constraint s0 "le" s1 * 2
// CHECK-NEXT: forge.constraint mod(s0, 3) "eq" 2
forge.symbol @s0 "rows" min 1
forge.symbol @s1 "columns" min 1
forge.constraint s0 "le" s1 * 2
forge.constraint mod(s0, 3) "eq" 2
