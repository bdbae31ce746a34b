// RUN: forgec opt %s --split-input-file -p 'dce' | filecheck %s

// CHECK: @first
func.func @first() {
  func.return
}

// -----

// CHECK: {{^}}// -----{{$}}
// CHECK: @second
// CHECK-NEXT: func.return
func.func @second(%a : i32) {
  %x = arith.addi %a, %a : i32
  func.return
}
