// RUN: forgec opt %s -p 'outline-control-flow' --split-input-file | filecheck %s

// DOC: both branches become functions; the parameter is read inside.
// What a branch uses from outside becomes an argument; parameters are repeated inside.
// CHECK-LABEL: func.func @branch
// CHECK:         scf.if %p -> (tensor<4xf32>) {
// CHECK-NEXT:      %[[A:.*]] = func.call @branch.if0.then(%x) : (tensor<4xf32>) -> tensor<4xf32>
// CHECK-NEXT:      scf.yield %[[A]]
// CHECK-NEXT:    } else {
// CHECK-NEXT:      %[[B:.*]] = func.call @branch.if0.else(%x) : (tensor<4xf32>) -> tensor<4xf32>
// CHECK-NEXT:      scf.yield %[[B]]
// CHECK:       func.func private @branch.if0.then(%x: tensor<4xf32>
// CHECK-NEXT:    %w = forge.param_ref @w
// CHECK-NEXT:    forge.mul %x, %w
// CHECK-NEXT:    func.return
// CHECK:       func.func private @branch.if0.else(%x: tensor<4xf32>
// CHECK-NEXT:    func.return %x
forge.param @w : tensor<4xf32>
func.func @branch(%x : tensor<4xf32>, %c : tensor<i1>) -> tensor<4xf32> {
  %w = forge.param_ref @w : tensor<4xf32>
  %p = forge.item %c : (tensor<i1>) -> i1
  %r = scf.if %p -> (tensor<4xf32>) {
    %a = forge.mul %x, %w : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
    scf.yield %a : tensor<4xf32>
  } else {
    scf.yield %x : tensor<4xf32>
  }
  func.return %r : tensor<4xf32>
}

// -----

// A value that a loop only inserts into is updated in place: result 0 in the memory of argument 1.
// CHECK-LABEL: func.func @collect
// CHECK:         scf.for
// CHECK-NEXT:      %[[N:.*]] = forge.from_index
// CHECK-NEXT:      func.call @collect.for0.body(%[[N]], %{{.*}}, %x)
// CHECK:       func.func private @collect.for0.body
// CHECK-SAME:    forge.updates = #forge.ints<[0, 1]>
func.func @collect(%x : tensor<4xf32>, %into : tensor<3x4xf32>) -> tensor<3x4xf32> {
  %lower = forge.extent 0 : index
  %upper = forge.extent 3 : index
  %step = forge.extent 1 : index
  %r = scf.for %i = %lower to %upper step %step iter_args(%all = %into) -> (tensor<3x4xf32>) {
    %n = forge.from_index %i : (index) -> tensor<i64>
    %place = forge.reshape %n : (tensor<i64>) -> tensor<1xi64>
    %row = forge.reshape %x : (tensor<4xf32>) -> tensor<1x4xf32>
    %next = forge.index_copy %all, %place, %row dim 0 : (tensor<3x4xf32>, tensor<1xi64>, tensor<1x4xf32>) -> tensor<3x4xf32>
    scf.yield %next : tensor<3x4xf32>
  }
  func.return %r : tensor<3x4xf32>
}

// -----

// CHECK-LABEL: func.func @until
// CHECK:         scf.while
// CHECK:           %[[C:.*]], %[[X:.*]] = func.call @until.while0.before
// CHECK-NEXT:      %[[P:.*]] = forge.item %[[C]]
// CHECK-NEXT:      scf.condition(%[[P]]) %[[X]]
// CHECK:           func.call @until.while0.after
// CHECK-NEXT:      scf.yield
func.func @until(%x : tensor<i64>) -> tensor<i64> {
  %r = scf.while (%a = %x) : (tensor<i64>) -> tensor<i64> {
    %c = forge.lt %a, 9 : (tensor<i64>) -> tensor<i1>
    %p = forge.item %c : (tensor<i1>) -> i1
    scf.condition(%p) %a : tensor<i64>
  } do {
  ^bb0(%a : tensor<i64>):
    %b = forge.add %a, 2 : (tensor<i64>) -> tensor<i64>
    scf.yield %b : tensor<i64>
  }
  func.return %r : tensor<i64>
}

// -----

// Without control flow nothing changes.
// CHECK-LABEL: func.func @plain
// CHECK-NEXT:    forge.neg
// CHECK-NEXT:    func.return
// CHECK-NOT:   private
func.func @plain(%x : tensor<4xf32>) -> tensor<4xf32> {
  %0 = forge.neg %x : (tensor<4xf32>) -> tensor<4xf32>
  func.return %0 : tensor<4xf32>
}

// -----

// A kernel is no control flow.
// CHECK-LABEL: func.func @kernel
// CHECK-NEXT:    forge.fused
// CHECK-NOT:   private
func.func @kernel(%x : tensor<4xf32>) -> tensor<4xf32> {
  %0 = forge.fused "neg" (%a = %x : tensor<4xf32>) {
    %1 = forge.neg %a : (tensor<4xf32>) -> tensor<4xf32>
    %2 = forge.cos %1 : (tensor<4xf32>) -> tensor<4xf32>
    forge.yield %2 : tensor<4xf32>
  } : tensor<4xf32>
  func.return %0 : tensor<4xf32>
}
