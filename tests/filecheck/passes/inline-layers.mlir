// RUN: forgec opt %s -p 'inline-layers' --split-input-file --verify-each | filecheck %s

// Layers are inlined, in each other as well; other functions stay.
// CHECK-LABEL: func.func @forward
// CHECK-NEXT:    %[[A:.*]] = forge.neg %x
// CHECK-NEXT:    %[[B:.*]] = forge.cos %[[A]]
// CHECK-NEXT:    %[[C:.*]] = forge.neg %[[B]]
// CHECK-NEXT:    %[[D:.*]] = forge.cos %[[C]]
// CHECK-NEXT:    %[[E:.*]] = func.call @forward.segment0(%[[D]])
// CHECK-NEXT:    func.return %[[E]], %x
// CHECK-NOT:   forge.layer
// CHECK:       func.func private @forward.segment0
// CHECK-NEXT:    %[[F:.*]] = forge.cos
// CHECK-NEXT:    func.return %[[F]]
// CHECK-NOT:   func.func
func.func @forward(%x : tensor<4xf32>) -> (tensor<4xf32>, tensor<4xf32>) {
  %0, %same = func.call @forward.layers(%x) : (tensor<4xf32>) -> (tensor<4xf32>, tensor<4xf32>)
  %1, %unused = func.call @forward.layers(%0) : (tensor<4xf32>) -> (tensor<4xf32>, tensor<4xf32>)
  %2 = func.call @forward.segment0(%1) : (tensor<4xf32>) -> tensor<4xf32>
  func.return %2, %same : tensor<4xf32>, tensor<4xf32>
}
func.func private @forward.layers(%0 : tensor<4xf32>) -> (tensor<4xf32>, tensor<4xf32>) attributes {forge.layer} {
  %1 = forge.neg %0 : (tensor<4xf32>) -> tensor<4xf32>
  %2 = func.call @forward.inner(%1) : (tensor<4xf32>) -> tensor<4xf32>
  func.return %2, %0 : tensor<4xf32>, tensor<4xf32>
}
func.func private @forward.inner(%0 : tensor<4xf32>) -> tensor<4xf32> attributes {forge.layer} {
  %1 = forge.cos %0 : (tensor<4xf32>) -> tensor<4xf32>
  func.return %1 : tensor<4xf32>
}
func.func private @forward.segment0(%0 : tensor<4xf32>) -> tensor<4xf32> {
  %1 = func.call @forward.inner(%0) : (tensor<4xf32>) -> tensor<4xf32>
  func.return %1 : tensor<4xf32>
}

// -----

// Calls in regions, and regions in layers, which get values of their own each time.
// CHECK-LABEL: func.func @regions
// CHECK-NEXT:    %[[P:.*]] = forge.item
// CHECK-NEXT:    %[[R:.*]] = scf.if %[[P]]
// CHECK-NEXT:      %[[I:.*]] = scf.if %[[P]]
// CHECK-NEXT:        %[[N:.*]] = forge.neg %x
// CHECK-NEXT:        scf.yield %[[N]]
// CHECK:           scf.yield %[[I]]
// CHECK-NEXT:    } else {
// CHECK-NEXT:      scf.yield %x
// CHECK-NEXT:    }
// CHECK-NEXT:    scf.if %[[P]]
// CHECK-NEXT:      forge.neg %[[R]]
func.func @regions(%x : tensor<4xf32>, %c : tensor<i1>) -> tensor<4xf32> {
  %p = forge.item %c : (tensor<i1>) -> i1
  %0 = scf.if %p -> (tensor<4xf32>) {
    %1 = func.call @regions.layers(%x, %p) : (tensor<4xf32>, i1) -> tensor<4xf32>
    scf.yield %1 : tensor<4xf32>
  } else {
    scf.yield %x : tensor<4xf32>
  }
  %2 = func.call @regions.layers(%0, %p) : (tensor<4xf32>, i1) -> tensor<4xf32>
  func.return %2 : tensor<4xf32>
}
func.func private @regions.layers(%x : tensor<4xf32>, %p : i1) -> tensor<4xf32> attributes {forge.layer} {
  %0 = scf.if %p -> (tensor<4xf32>) {
    %1 = forge.neg %x : (tensor<4xf32>) -> tensor<4xf32>
    scf.yield %1 : tensor<4xf32>
  } else {
    scf.yield %x : tensor<4xf32>
  }
  func.return %0 : tensor<4xf32>
}

// -----

// DOC: two calls of one layer.
// CHECK-LABEL: func.func @twice
// CHECK-NEXT:    %[[A:.*]] = forge.cos %x
// CHECK-NEXT:    %[[B:.*]] = forge.cos %[[A]]
// CHECK-NEXT:    func.return %[[B]]
func.func @twice(%x : tensor<4xf32>) -> tensor<4xf32> {
  %0 = func.call @twice.layers(%x) : (tensor<4xf32>) -> tensor<4xf32>
  %1 = func.call @twice.layers(%0) : (tensor<4xf32>) -> tensor<4xf32>
  func.return %1 : tensor<4xf32>
}
func.func private @twice.layers(%0 : tensor<4xf32>) -> tensor<4xf32> attributes {forge.layer} {
  %1 = forge.cos %0 : (tensor<4xf32>) -> tensor<4xf32>
  func.return %1 : tensor<4xf32>
}

// -----

// A function that outline-layers has not made stays a function.
// CHECK-LABEL: func.func @segments
// CHECK-NEXT:    func.call @segments.segment0
func.func @segments(%x : tensor<4xf32>) -> tensor<4xf32> {
  %0 = func.call @segments.segment0(%x) : (tensor<4xf32>) -> tensor<4xf32>
  func.return %0 : tensor<4xf32>
}
func.func private @segments.segment0(%0 : tensor<4xf32>) -> tensor<4xf32> {
  %1 = forge.cos %0 : (tensor<4xf32>) -> tensor<4xf32>
  func.return %1 : tensor<4xf32>
}
