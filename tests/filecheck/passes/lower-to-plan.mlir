// RUN: forgec opt %s -p 'lower-to-plan,allocate-buffers' --split-input-file | filecheck %s

// DOC: three ops in the memory of one buffer and the result.
// The dying operand's bytes take the result; the returned value is a fresh tensor of the caller's.
// CHECK-LABEL: plan.entry @in_place
// CHECK-NEXT:    %x = plan.input 0 "x"
// CHECK-NEXT:    %[[B:.*]] = plan.buffer bytes 24 at 0 live [0, 3]
// CHECK-NEXT:    plan.launch "aten::neg.out"(%x, out = %[[B]]) writes [1] from "forge.neg"
// CHECK-NEXT:    plan.launch "aten::exp.out"(%[[B]], out = %[[B]]) writes [0] from "forge.exp"
// CHECK-NEXT:    %[[O:.*]] = plan.output
// CHECK-NEXT:    plan.launch "aten::cos.out"(%[[B]], out = %[[O]]) writes [1] from "forge.cos"
// CHECK-NEXT:    plan.return (%[[O]])
func.func @in_place(%x : tensor<2x3xf32>) -> tensor<2x3xf32> {
  %0 = forge.neg %x : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %1 = forge.exp %0 : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %2 = forge.cos %1 : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return %2 : tensor<2x3xf32>
}

// -----

// A value that is read later keeps its bytes.
// CHECK-LABEL: plan.entry @still_needed
// CHECK:         %[[A:.*]] = plan.buffer bytes 24 at 0
// CHECK-NEXT:    plan.launch "aten::neg.out"(%x, out = %[[A]])
// CHECK-NEXT:    %[[B:.*]] = plan.buffer bytes 24 at 64
// CHECK-NEXT:    plan.launch "aten::exp.out"(%[[A]], out = %[[B]])
func.func @still_needed(%x : tensor<2x3xf32>) -> tensor<2x3xf32> {
  %0 = forge.neg %x : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %1 = forge.exp %0 : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %2 = forge.mul %0, %1 : (tensor<2x3xf32>, tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return %2 : tensor<2x3xf32>
}

// -----

// Views cost nothing; a reshape that strides cannot say is one copy.
// CHECK-LABEL: plan.entry @views
// CHECK:         plan.view %x offset 0 : (tensor<2x3xf32>) -> tensor<3x2xf32, #forge.tensor<[], strides = [1, 3]>>
// CHECK:         plan.launch "aten::copy_"
// CHECK-NOT:     plan.launch
// CHECK:         plan.return
func.func @views(%x : tensor<2x3xf32>) -> tensor<6xf32> {
  %0 = forge.transpose %x [1, 0] : (tensor<2x3xf32>) -> tensor<3x2xf32, #forge.tensor<[], strides = [1, 3]>>
  %1 = forge.reshape %0 : (tensor<3x2xf32, #forge.tensor<[], strides = [1, 3]>>) -> tensor<6xf32>
  func.return %1 : tensor<6xf32>
}

// -----

// State is updated where it lies: no copy of it.
// CHECK-LABEL: plan.entry @cache
// CHECK:         %cache = plan.state "cache"
// CHECK-NEXT:    plan.launch "aten::index_copy_"(%cache, 0, %at, %x) writes [0] from "forge.index_copy"
// CHECK-NEXT:    %{{.*}} = plan.output
// CHECK-NEXT:    plan.launch "aten::sum.IntList_out"(%cache
// CHECK-NOT:     aten::copy_
func.func @cache(%x : tensor<1x4xf32>, %at : tensor<1xi64>, %cache : !forge.state<tensor<8x4xf32>>) -> (tensor<4xf32>, !forge.state<tensor<8x4xf32>>) {
  %0 = forge.state_read %cache : (!forge.state<tensor<8x4xf32>>) -> tensor<8x4xf32>
  %1 = forge.index_copy %0, %at, %x dim 0 : (tensor<8x4xf32>, tensor<1xi64>, tensor<1x4xf32>) -> tensor<8x4xf32>
  %2 = forge.sum %1 over [0] : (tensor<8x4xf32>) -> tensor<4xf32>
  %3 = forge.state_write %cache, %1 : (!forge.state<tensor<8x4xf32>>, tensor<8x4xf32>) -> !forge.state<tensor<8x4xf32>>
  func.return %2, %3 : tensor<4xf32>, !forge.state<tensor<8x4xf32>>
}

// -----

// The old value of the state is returned: it must survive the write.
// CHECK-LABEL: plan.entry @old_value
// CHECK:         %[[OLD:.*]] = plan.output
// CHECK-NEXT:    plan.launch "aten::copy_"(%[[OLD]], %s)
// CHECK:         plan.launch "aten::copy_"(%s, %x)
// CHECK:         plan.return (%[[OLD]])
func.func @old_value(%x : tensor<4xf32>, %s : !forge.state<tensor<4xf32>>) -> (tensor<4xf32>, !forge.state<tensor<4xf32>>) {
  %0 = forge.state_read %s : (!forge.state<tensor<4xf32>>) -> tensor<4xf32>
  %1 = forge.state_write %s, %x : (!forge.state<tensor<4xf32>>, tensor<4xf32>) -> !forge.state<tensor<4xf32>>
  func.return %0, %1 : tensor<4xf32>, !forge.state<tensor<4xf32>>
}

// -----

// Sizes that depend on a symbol stay formulas; offsets stay open.
// CHECK-LABEL: plan.entry @dynamic
// CHECK:         plan.buffer bytes s0 * 12 live [0, 2] : tensor<?x3xf32, #forge.tensor<[s0]>>
forge.symbol @s0 "rows" min 1 max 64
func.func @dynamic(%x : tensor<?x3xf32, #forge.tensor<[s0]>>) -> tensor<3xf32> {
  %0 = forge.neg %x : (tensor<?x3xf32, #forge.tensor<[s0]>>) -> tensor<?x3xf32, #forge.tensor<[s0]>>
  %1 = forge.sum %0 over [0] : (tensor<?x3xf32, #forge.tensor<[s0]>>) -> tensor<3xf32>
  func.return %1 : tensor<3xf32>
}
