// RUN: forgec opt %s -p 'cse,dce' | filecheck %s
// RUN: forgec opt %s -p '' | filecheck %s --check-prefix=NONE

func.func @f(%a : i32) -> i32 {
  %x = arith.addi %a, %a : i32
  %y = arith.addi %a, %a : i32
  %z = arith.addi %x, %y : i32
  func.return %z : i32
}

// CHECK-LABEL: func.func @f
// CHECK-NEXT:    [[X:%.*]] = arith.addi %a, %a : i32
// CHECK-NEXT:    [[Z:%.*]] = arith.addi [[X]], [[X]] : i32
// CHECK-NEXT:    func.return [[Z]] : i32

// NONE-COUNT-3: arith.addi
// NONE: func.return
