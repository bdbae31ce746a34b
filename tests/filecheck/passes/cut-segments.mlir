// RUN: forgec opt %s -p 'cut-segments' --split-input-file | filecheck %s

// DOC: what needs the number of rows that `nonzero` finds is a second function.
// The second segment needs u0; what does not stays in the first, wherever it stood.
// CHECK-LABEL: func.func @rows
// CHECK-NEXT:    %[[R:.*]], %[[C:.*]] = func.call @rows.segment0(%x)
// CHECK-NEXT:    %[[N:.*]] = func.call @rows.segment1(%[[R]])
// CHECK-NEXT:    func.return %[[N]], %[[C]]
// CHECK:       func.func private @rows.segment0
// CHECK-NEXT:    forge.aten "aten::nonzero"(%x) defines [u0]
// CHECK-NEXT:    forge.cos %x
// CHECK:       func.func private @rows.segment1
// CHECK-NEXT:    forge.neg
// CHECK-NEXT:    func.return
forge.symbol @u0 "u0" min 0 max 4
func.func @rows(%x : tensor<4xf32>) -> (tensor<?x1xi64, #forge.tensor<[u0]>>, tensor<4xf32>) {
  %0 = forge.aten "aten::nonzero"(%x) defines [u0] : (tensor<4xf32>) -> tensor<?x1xi64, #forge.tensor<[u0]>>
  %1 = forge.neg %0 : (tensor<?x1xi64, #forge.tensor<[u0]>>) -> tensor<?x1xi64, #forge.tensor<[u0]>>
  %2 = forge.cos %x : (tensor<4xf32>) -> tensor<4xf32>
  func.return %1, %2 : tensor<?x1xi64, #forge.tensor<[u0]>>, tensor<4xf32>
}

// -----

// A number that becomes an extent; parameters are repeated, not passed.
// CHECK-LABEL: func.func @count
// CHECK-NEXT:    %[[N:.*]] = func.call @count.segment0(%n) : (tensor<i64>) -> !forge.sym<u0>
// CHECK-NEXT:    func.call @count.segment1() : () -> tensor<?xi64
// CHECK:       func.func private @count.segment0
// CHECK-NEXT:    forge.item
// CHECK:       func.func private @count.segment1
// CHECK-NEXT:    forge.param_ref @w
// CHECK-NEXT:    forge.iota
// CHECK-NEXT:    forge.add
forge.symbol @u0 "u0" min 0
forge.param @w : tensor<1xi64>
func.func @count(%n : tensor<i64>) -> tensor<?xi64, #forge.tensor<[u0]>> {
  %w = forge.param_ref @w : tensor<1xi64>
  %u = forge.item %n : (tensor<i64>) -> !forge.sym<u0>
  %0 = forge.iota from 0 step 1 : tensor<?xi64, #forge.tensor<[u0]>>
  %1 = forge.add %0, %w : (tensor<?xi64, #forge.tensor<[u0]>>, tensor<1xi64>) -> tensor<?xi64, #forge.tensor<[u0]>>
  func.return %1 : tensor<?xi64, #forge.tensor<[u0]>>
}

// -----

// State that only a later segment writes goes through the first as it is.
// CHECK-LABEL: func.func @state
// CHECK:         func.call @state.segment0
// CHECK:         func.call @state.segment1
// CHECK:       func.func private @state.segment1
// CHECK:         forge.state_write
forge.symbol @u0 "u0" min 0
func.func @state(%s : !forge.state<tensor<4xf32>>, %x : tensor<4xf32>) -> !forge.state<tensor<4xf32>> {
  %old = forge.state_read %s : (!forge.state<tensor<4xf32>>) -> tensor<4xf32>
  %i = forge.aten "aten::nonzero"(%old) defines [u0] : (tensor<4xf32>) -> tensor<?x1xi64, #forge.tensor<[u0]>>
  %f = forge.cast %i : (tensor<?x1xi64, #forge.tensor<[u0]>>) -> tensor<?x1xf32, #forge.tensor<[u0]>>
  %sum = forge.sum %f over [0, 1] : (tensor<?x1xf32, #forge.tensor<[u0]>>) -> tensor<f32>
  %new = forge.add %x, %sum : (tensor<4xf32>, tensor<f32>) -> tensor<4xf32>
  %next = forge.state_write %s, %new : (!forge.state<tensor<4xf32>>, tensor<4xf32>) -> !forge.state<tensor<4xf32>>
  func.return %next : !forge.state<tensor<4xf32>>
}

// -----

// Known extents need no cut.
// CHECK-LABEL: func.func @known
// CHECK-NEXT:    forge.neg
// CHECK-NEXT:    func.return
forge.symbol @s0 "seq" min 1
func.func @known(%x : tensor<?xf32, #forge.tensor<[s0]>>) -> tensor<?xf32, #forge.tensor<[s0]>> {
  %0 = forge.neg %x : (tensor<?xf32, #forge.tensor<[s0]>>) -> tensor<?xf32, #forge.tensor<[s0]>>
  func.return %0 : tensor<?xf32, #forge.tensor<[s0]>>
}
