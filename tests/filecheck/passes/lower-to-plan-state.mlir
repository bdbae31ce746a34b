// RUN: forgec opt %s -p 'lower-to-plan,allocate-buffers' --split-input-file | filecheck %s

// A state that becomes a rearrangement of itself goes through a buffer: a copy must not read what it has written.
// CHECK-LABEL: plan.entry @rearranged
// CHECK:         %s = plan.state "s"
// CHECK-NEXT:    %[[B:.*]] = plan.buffer bytes 36
// CHECK-NEXT:    %[[T:.*]] = plan.view %s offset 0 : (tensor<3x3xf32>) -> tensor<3x3xf32, #forge.tensor<[], strides = [1, 3]>>
// CHECK-NEXT:    plan.launch "aten::copy_"(%[[B]], %[[T]])
// CHECK-NEXT:    plan.launch "aten::copy_"(%s, %[[B]])
// CHECK-NEXT:    plan.return
func.func @rearranged(%s : !forge.state<tensor<3x3xf32>>) -> !forge.state<tensor<3x3xf32>> {
  %0 = forge.state_read %s : (!forge.state<tensor<3x3xf32>>) -> tensor<3x3xf32>
  %1 = forge.transpose %0 [1, 0] : (tensor<3x3xf32>) -> tensor<3x3xf32, #forge.tensor<[], strides = [1, 3]>>
  %2 = forge.state_write %s, %1 : (!forge.state<tensor<3x3xf32>>, tensor<3x3xf32, #forge.tensor<[], strides = [1, 3]>>) -> !forge.state<tensor<3x3xf32>>
  func.return %2 : !forge.state<tensor<3x3xf32>>
}

// -----

// After its last write a state's bytes are its own: the sum, though the state is read for the last time, gets other bytes.
// CHECK-LABEL: plan.entry @written_last
// CHECK:         %s = plan.state "s"
// CHECK-NEXT:    plan.launch "aten::copy_"(%s, %x)
// CHECK-NEXT:    %[[B:.*]] = plan.buffer
// CHECK-NEXT:    plan.launch "aten::neg.out"(%s, out = %[[B]])
// CHECK-NOT:     out = %s
// CHECK:         plan.return
func.func @written_last(%x : tensor<4xf32>, %s : !forge.state<tensor<4xf32>>) -> (tensor<f32>, !forge.state<tensor<4xf32>>) {
  %0 = forge.state_write %s, %x : (!forge.state<tensor<4xf32>>, tensor<4xf32>) -> !forge.state<tensor<4xf32>>
  %1 = forge.state_read %0 : (!forge.state<tensor<4xf32>>) -> tensor<4xf32>
  %2 = forge.neg %1 : (tensor<4xf32>) -> tensor<4xf32>
  %3 = forge.sum %2 over [0] : (tensor<4xf32>) -> tensor<f32>
  func.return %3, %0 : tensor<f32>, !forge.state<tensor<4xf32>>
}

// -----

// An update whose source is its destination works on a copy.
// CHECK-LABEL: plan.entry @onto_itself
// CHECK:         %[[A:.*]] = plan.buffer
// CHECK-NEXT:    plan.launch "aten::neg.out"(%x, out = %[[A]])
// CHECK:         %[[O:.*]] = plan.output
// CHECK-NEXT:    plan.launch "aten::copy_"(%[[O]], %[[A]])
// CHECK-NEXT:    plan.launch "aten::index_copy_"(%[[O]], 0, %at, %[[A]])
func.func @onto_itself(%x : tensor<3xf32>, %at : tensor<3xi64>) -> tensor<3xf32> {
  %0 = forge.neg %x : (tensor<3xf32>) -> tensor<3xf32>
  %1 = forge.index_copy %0, %at, %0 dim 0 : (tensor<3xf32>, tensor<3xi64>, tensor<3xf32>) -> tensor<3xf32>
  func.return %1 : tensor<3xf32>
}

// -----

// Each of two states takes the other's value: the one that is written first is kept.
// CHECK-LABEL: plan.entry @exchanged
// CHECK:         %[[B:.*]] = plan.buffer
// CHECK-NEXT:    plan.launch "aten::copy_"(%[[B]], %a)
// CHECK-NEXT:    plan.launch "aten::copy_"(%a, %b)
// CHECK-NEXT:    plan.launch "aten::copy_"(%b, %[[B]])
// CHECK-NEXT:    plan.return
func.func @exchanged(%a : !forge.state<tensor<4xf32>>, %b : !forge.state<tensor<4xf32>>) -> (!forge.state<tensor<4xf32>>, !forge.state<tensor<4xf32>>) {
  %0 = forge.state_read %a : (!forge.state<tensor<4xf32>>) -> tensor<4xf32>
  %1 = forge.state_read %b : (!forge.state<tensor<4xf32>>) -> tensor<4xf32>
  %2 = forge.state_write %a, %1 : (!forge.state<tensor<4xf32>>, tensor<4xf32>) -> !forge.state<tensor<4xf32>>
  %3 = forge.state_write %b, %0 : (!forge.state<tensor<4xf32>>, tensor<4xf32>) -> !forge.state<tensor<4xf32>>
  func.return %2, %3 : !forge.state<tensor<4xf32>>, !forge.state<tensor<4xf32>>
}

// -----

// Nothing to do: a state that is not written has no launch.
// CHECK-LABEL: plan.entry @idle
// CHECK-NEXT:    %s = plan.state "s"
// CHECK-NEXT:    plan.return
func.func @idle(%s : !forge.state<tensor<4xf32>>) -> !forge.state<tensor<4xf32>> {
  %0 = forge.state_read %s : (!forge.state<tensor<4xf32>>) -> tensor<4xf32>
  func.return %s : !forge.state<tensor<4xf32>>
}
