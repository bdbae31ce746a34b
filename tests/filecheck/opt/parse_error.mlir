// RUN: not forgec opt %s 2>&1 | filecheck %s

func.func @f(%a : i32) {
  %x = arith.addi %a %a : i32
  func.return
}

// CHECK: error[FORGE-I001]:
// CHECK-NEXT: parse_error.mlir:4
// CHECK: note: at {{.*}}parse_error.mlir:4:22
// CHECK-NEXT: %x = arith.addi %a %a : i32
// CHECK-NEXT: {{^ +\^$}}
