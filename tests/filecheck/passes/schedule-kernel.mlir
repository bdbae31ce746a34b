// RUN: forgec opt %s -p 'schedule-kernel{target=sm_90a}' --split-input-file --verify-each | filecheck %s

// DOC: Loads run by themselves as early as there is room for what they bring. Both iterations are under way at once here,
// DOC: and the tile from before the loop with them.
// CHECK-LABEL: warp.kernel @row_sum
// CHECK:         warp.group "consumer" warps 4 registers {{.*}} {
// CHECK:           %{{.*}}, %[[S:.*]] = warp.async_load
// CHECK-NEXT:      %{{.*}}, %[[T:.*]] = warp.async_load
// CHECK-NEXT:      %{{.*}}, %[[U:.*]] = warp.async_load
// CHECK-NEXT:      warp.wait %[[S]]
// CHECK-NEXT:      warp.wait %[[T]]
// CHECK-NEXT:      %{{.*}} = arith.addf
// CHECK-NEXT:      warp.wait %[[U]]
// CHECK-NEXT:      %[[SUM:.*]] = arith.addf
// CHECK-NEXT:      tile.store %[[SUM]]
tile.kernel @row_sum(%x: !tile.block<tensor<4x96xf32>>, %y: !tile.block<tensor<4x32xf32>>) writes [1] grid [1] {
  %0 = tile.index 0() : () -> index
  %96 = tile.index 96() : () -> index
  %32 = tile.index 32() : () -> index
  %first = tile.load %x[%0, %0] : !tile.block<tensor<4x96xf32>> -> tensor<4x32xf32>
  %sum = scf.for %k = %32 to %96 step %32 iter_args(%acc = %first) -> (tensor<4x32xf32>) {
    %a = tile.load %x[%0, %k] : !tile.block<tensor<4x96xf32>> -> tensor<4x32xf32>
    %b = arith.addf %acc, %a : tensor<4x32xf32>
    scf.yield %b : tensor<4x32xf32>
  }
  tile.store %sum, %y[%0, %0] : tensor<4x32xf32>, !tile.block<tensor<4x32xf32>>
  tile.return
}

// -----

// The loop of a product: one group loads, one multiplies.
// CHECK-LABEL: warp.kernel @linear
// CHECK-SAME:    grid [2] schedule #warp.schedule<ii = {{.*}}, bound = {{.*}}, binding = "{{.*}}", stages = {{.*}}, status = {{.*}}>
// CHECK:         %[[TRIPS:.*]] = tile.index floordiv(n0 + 63, 64)()
// CHECK-DAG:     %[[A:a_ring]] = aref.create depth {{.*}} in "shared" : !aref.ring<tensor<64x64xbf16>>
// CHECK-DAG:     %[[B:b_ring]] = aref.create depth {{.*}} in "shared" : !aref.ring<tensor<64x64xbf16>>
// CHECK:         warp.group "load" warps 1 registers {{.*}} {
// CHECK:           scf.for %[[I:.*]] = %{{.*}} to %[[TRIPS]] step
// CHECK:             %[[L:.*]], %[[T:.*]] = warp.async_load %{{.*}}[%m, %{{.*}}] in "shared"
// CHECK-NEXT:        aref.put %{{.*}}[%[[I]]], %[[L]] after %[[T]]
// CHECK:             warp.async_load
// CHECK:         warp.group "mma" warps 4 registers {{.*}} {
// CHECK:           %[[LOOP:.*]], %[[LAST:.*]] = scf.for %[[J:.*]] = %{{.*}} to %[[TRIPS]] step %{{.*}} iter_args(%[[ACC:.*]] = %init, %{{.*}} = %{{.*}}) -> (tensor<64x64xf32>, !warp.token)
// CHECK:             %[[X:.*]] = aref.get %[[A]][%[[J]]]
// CHECK:             %[[Y:.*]] = aref.get %[[B]][%[[J]]]
// CHECK-NOT:         warp.wait
// CHECK:             %{{.*}}, %[[V:.*]] = warp.mma %[[X]], %[[Y]] into %[[ACC]] transposed
// CHECK:             aref.consumed %[[A]][%[[J]]] after %[[V]]
// CHECK:             aref.consumed %[[B]][%[[J]]] after %[[V]]
// CHECK:           warp.wait %[[LAST]]
// CHECK:           tile.store %[[LOOP]], %y
tile.kernel @linear(%x: !tile.block<tensor<128x?xbf16, #forge.tensor<[n0]>>>, %w: !tile.block<tensor<128x?xbf16, #forge.tensor<[n0]>>>, %y: !tile.block<tensor<128x64xf32>>) symbols [n0] writes [2] grid [2] {
  %p = tile.program_id 0
  %m = tile.index p0 * 64(%p) : (index) -> index
  %zero = tile.index 0() : () -> index
  %end = tile.index n0() : () -> index
  %step = tile.index 64() : () -> index
  %f = arith.constant 0.0 : f32
  %init = tile.broadcast %f along [] : f32 -> tensor<64x64xf32>
  %sum = scf.for %k = %zero to %end step %step iter_args(%acc = %init) -> (tensor<64x64xf32>) {
    %a = tile.load %x[%m, %k] : !tile.block<tensor<128x?xbf16, #forge.tensor<[n0]>>> -> tensor<64x64xbf16>
    %b = tile.load %w[%m, %k] : !tile.block<tensor<128x?xbf16, #forge.tensor<[n0]>>> -> tensor<64x64xbf16>
    %c = tile.dot %a, %b into %acc transposed : tensor<64x64xbf16>, tensor<64x64xbf16> -> tensor<64x64xf32>
    scf.yield %c : tensor<64x64xf32>
  }
  tile.store %sum, %y[%m, %zero] : tensor<64x64xf32>, !tile.block<tensor<128x64xf32>>
  tile.return
}

// -----

// Two programs that read the same factor are one, where that costs less.
// CHECK-LABEL: warp.kernel @shared
// CHECK-SAME:    grid [1] schedule
// CHECK-DAG:     aref.create depth {{.*}} readers 2 in "shared"
// CHECK:         warp.group "load"
tile.kernel @shared(%x: !tile.block<tensor<128x?xbf16, #forge.tensor<[n0]>>>, %w: !tile.block<tensor<64x?xbf16, #forge.tensor<[n0]>>>, %y: !tile.block<tensor<128x64xf32>>) symbols [n0] writes [2] grid [2] {
  %p = tile.program_id 0
  %m = tile.index p0 * 64(%p) : (index) -> index
  %zero = tile.index 0() : () -> index
  %end = tile.index n0() : () -> index
  %step = tile.index 64() : () -> index
  %f = arith.constant 0.0 : f32
  %init = tile.broadcast %f along [] : f32 -> tensor<64x64xf32>
  %sum = scf.for %k = %zero to %end step %step iter_args(%acc = %init) -> (tensor<64x64xf32>) {
    %a = tile.load %x[%m, %k] : !tile.block<tensor<128x?xbf16, #forge.tensor<[n0]>>> -> tensor<64x64xbf16>
    %b = tile.load %w[%zero, %k] : !tile.block<tensor<64x?xbf16, #forge.tensor<[n0]>>> -> tensor<64x64xbf16>
    %c = tile.dot %a, %b into %acc transposed : tensor<64x64xbf16>, tensor<64x64xbf16> -> tensor<64x64xf32>
    scf.yield %c : tensor<64x64xf32>
  }
  tile.store %sum, %y[%m, %zero] : tensor<64x64xf32>, !tile.block<tensor<128x64xf32>>
  tile.return
}

// -----

// A kernel without a loop.
// CHECK-LABEL: tile.kernel @straight
tile.kernel @straight(%x: !tile.block<tensor<8xf32>>, %y: !tile.block<tensor<8xf32>>) writes [1] grid [1] {
  %z = tile.index 0() : () -> index
  %a = tile.load %x[%z] : !tile.block<tensor<8xf32>> -> tensor<8xf32>
  tile.store %a, %y[%z] : tensor<8xf32>, !tile.block<tensor<8xf32>>
  tile.return
}

// -----

// A kernel that reads what it writes: one group does both, in the order of the text, and nothing runs by itself.
// CHECK-LABEL: warp.kernel @in_place
// CHECK:         warp.group
// CHECK-NOT:     warp.async_load
// CHECK:         tile.store
// CHECK-NOT:     warp.group
tile.kernel @in_place(%y: !tile.block<tensor<4x64xf32>>) writes [0] updates [0] grid [1] {
  %zero = tile.index 0() : () -> index
  %end = tile.index 64() : () -> index
  %step = tile.index 4() : () -> index
  scf.for %i = %zero to %end step %step {
    %a = tile.load %y[%zero, %i] : !tile.block<tensor<4x64xf32>> -> tensor<4x4xf32>
    %b = arith.addf %a, %a : tensor<4x4xf32>
    tile.store %b, %y[%zero, %i] : tensor<4x4xf32>, !tile.block<tensor<4x64xf32>>
  }
  tile.return
}

// -----

// One that reads it outside of its loop, where any group may compute it: groups are not ordered in memory.
// CHECK-LABEL: tile.kernel @read_back
tile.kernel @read_back(%y: !tile.block<tensor<4x64xf32>>, %s: !tile.block<tensor<4x4xf32>>) writes [0, 1] updates [0] grid [1] {
  %zero = tile.index 0() : () -> index
  %end = tile.index 64() : () -> index
  %step = tile.index 4() : () -> index
  %f = arith.constant 1.0 : f32
  %one = tile.broadcast %f along [] : f32 -> tensor<4x4xf32>
  %last = scf.for %i = %zero to %end step %step iter_args(%acc = %one) -> (tensor<4x4xf32>) {
    %b = arith.addf %acc, %acc : tensor<4x4xf32>
    tile.store %b, %y[%zero, %i] : tensor<4x4xf32>, !tile.block<tensor<4x64xf32>>
    scf.yield %b : tensor<4x4xf32>
  }
  %a = tile.load %y[%zero, %zero] : !tile.block<tensor<4x64xf32>> -> tensor<4x4xf32>
  %c = arith.addf %a, %last : tensor<4x4xf32>
  tile.store %c, %s[%zero, %zero] : tensor<4x4xf32>, !tile.block<tensor<4x4xf32>>
  tile.return
}

// -----

// Two loops: groups run one after the other, and the numbers in their rings go on.
// CHECK-LABEL: warp.kernel @two
// CHECK:         %[[ONE:.*]] = tile.index n0()
// CHECK:         %[[TWO:.*]] = tile.index n1()
// CHECK-COUNT-2: aref.create
// CHECK-NOT:     aref.create
// CHECK:         warp.group "load"
// CHECK:           scf.for %[[I:.*]] = %{{.*}} to %[[ONE]] step
// CHECK:             aref.put %{{.*}}[%[[I]]]
// CHECK:           scf.for %[[J:.*]] = %{{.*}} to %[[TWO]] step
// CHECK:             %[[N:.*]] = tile.index p0 + p1(%[[J]], %[[ONE]])
// CHECK:             aref.put %{{.*}}[%[[N]]]
// CHECK:         warp.group "mma"
tile.kernel @two(%x: !tile.block<tensor<64x?xbf16, #forge.tensor<[n0 * 64 + n1 * 64]>>>, %y: !tile.block<tensor<64x64xf32>>) symbols [n0, n1] writes [1] grid [1] {
  %zero = tile.index 0() : () -> index
  %step = tile.index 64() : () -> index
  %one = tile.index n0 * 64() : () -> index
  %two = tile.index n1 * 64() : () -> index
  %f = arith.constant 0.0 : f32
  %init = tile.broadcast %f along [] : f32 -> tensor<64x64xf32>
  %first = scf.for %i = %zero to %one step %step iter_args(%acc = %init) -> (tensor<64x64xf32>) {
    %a = tile.load %x[%zero, %i] : !tile.block<tensor<64x?xbf16, #forge.tensor<[n0 * 64 + n1 * 64]>>> -> tensor<64x64xbf16>
    %b = tile.load %x[%zero, %i] : !tile.block<tensor<64x?xbf16, #forge.tensor<[n0 * 64 + n1 * 64]>>> -> tensor<64x64xbf16>
    %c = tile.dot %a, %b into %acc transposed : tensor<64x64xbf16>, tensor<64x64xbf16> -> tensor<64x64xf32>
    scf.yield %c : tensor<64x64xf32>
  }
  %second = scf.for %j = %zero to %two step %step iter_args(%acc = %first) -> (tensor<64x64xf32>) {
    %a = tile.load %x[%zero, %j] : !tile.block<tensor<64x?xbf16, #forge.tensor<[n0 * 64 + n1 * 64]>>> -> tensor<64x64xbf16>
    %b = tile.load %x[%zero, %j] : !tile.block<tensor<64x?xbf16, #forge.tensor<[n0 * 64 + n1 * 64]>>> -> tensor<64x64xbf16>
    %c = tile.dot %a, %b into %acc transposed : tensor<64x64xbf16>, tensor<64x64xbf16> -> tensor<64x64xf32>
    scf.yield %c : tensor<64x64xf32>
  }
  tile.store %second, %y[%zero, %zero] : tensor<64x64xf32>, !tile.block<tensor<64x64xf32>>
  tile.return
}

// -----

// Programs that do different things: where a branch is not taken its loop runs no times.
// CHECK-LABEL: warp.kernel @branches
// CHECK:         %[[END:.*]] = arith.select %[[MINE:.*]], %{{.*}}, %{{.*}} : index
// CHECK:         warp.group
// CHECK:         scf.if %[[MINE]]
// CHECK-NEXT:      tile.store
tile.kernel @branches(%x: !tile.block<tensor<4x96xf32>>, %y: !tile.block<tensor<4x32xf32>>) writes [1] grid [2] {
  %0 = tile.index 0() : () -> index
  %1 = tile.index 1() : () -> index
  %p = tile.program_id 0
  %mine = arith.cmpi slt, %p, %1 : index
  scf.if %mine {
    %96 = tile.index 96() : () -> index
    %32 = tile.index 32() : () -> index
    %f = arith.constant 0.0 : f32
    %init = tile.broadcast %f along [] : f32 -> tensor<4x32xf32>
    %sum = scf.for %k = %0 to %96 step %32 iter_args(%acc = %init) -> (tensor<4x32xf32>) {
      %a = tile.load %x[%0, %k] : !tile.block<tensor<4x96xf32>> -> tensor<4x32xf32>
      %b = arith.addf %acc, %a : tensor<4x32xf32>
      scf.yield %b : tensor<4x32xf32>
    }
    tile.store %sum, %y[%0, %0] : tensor<4x32xf32>, !tile.block<tensor<4x32xf32>>
  }
  tile.return
}

// -----

// A loop in a loop: each group runs both, and numbers in the rings go on from turn to turn. How far the inner one goes
// is read by each group.
// CHECK-LABEL: warp.kernel @nested
// CHECK:         aref.create
// CHECK:         warp.group "load"
// CHECK:           scf.for %[[G:.*]] = %{{.*}} to %{{.*}} step %{{.*}} iter_args(%[[COUNT:.*]] = %{{.*}}) -> (index) {
// CHECK:             tile.load %{{.*}}[] : {{.*}} -> i32
// CHECK:             %[[TRIPS:.*]] = arith.maxsi
// CHECK:             scf.for %[[J:.*]] = %{{.*}} to %[[TRIPS]] step
// CHECK:               %[[N:.*]] = tile.index p0 + p1(%[[J]], %[[COUNT]])
// CHECK:               aref.put %{{.*}}[%[[N]]]
// CHECK:             %[[NEXT:.*]] = tile.index p0 + p1(%[[COUNT]], %[[TRIPS]])
// CHECK-NEXT:        scf.yield %[[NEXT]] : index
// CHECK:         warp.group "mma"
// CHECK:           scf.for %{{.*}} iter_args(%[[SUM:.*]] = %{{.*}}, %{{.*}} = %{{.*}}) -> (tensor<64x64xf32>, index) {
// CHECK:             %[[DONE:.*]], %[[LAST:.*]] = scf.for %{{.*}} iter_args(%{{.*}} = %[[SUM]], %{{.*}} = %{{.*}})
// CHECK:             warp.wait %[[LAST]]
// CHECK:             scf.yield %[[DONE]], %{{.*}} : tensor<64x64xf32>, index
// CHECK:           tile.store
tile.kernel @nested(%x: !tile.block<tensor<64x256xbf16>>, %w: !tile.block<tensor<256x64xbf16>>, %ends: !tile.block<tensor<4xi32>>, %y: !tile.block<tensor<64x64xf32>>) writes [3] grid [1] {
  %zero = tile.index 0() : () -> index
  %one = tile.index 1() : () -> index
  %groups = tile.index 4() : () -> index
  %step = tile.index 64() : () -> index
  %f = arith.constant 0.0 : f32
  %init = tile.broadcast %f along [] : f32 -> tensor<64x64xf32>
  %sum = scf.for %g = %zero to %groups step %one iter_args(%outer = %init) -> (tensor<64x64xf32>) {
    %n = tile.index p0 * 64(%g) : (index) -> index
    %place = tile.view %ends[%g] : !tile.block<tensor<4xi32>> to !tile.block<tensor<i32>>
    %read = tile.load %place[] : !tile.block<tensor<i32>> -> i32
    %end = arith.index_cast %read : i32 to index
    %inner = scf.for %k = %zero to %end step %step iter_args(%acc = %outer) -> (tensor<64x64xf32>) {
      %a = tile.load %x[%zero, %k] : !tile.block<tensor<64x256xbf16>> -> tensor<64x64xbf16>
      %b = tile.load %w[%n, %zero] : !tile.block<tensor<256x64xbf16>> -> tensor<64x64xbf16>
      %c = tile.dot %a, %b into %acc : tensor<64x64xbf16>, tensor<64x64xbf16> -> tensor<64x64xf32>
      scf.yield %c : tensor<64x64xf32>
    }
    scf.yield %inner : tensor<64x64xf32>
  }
  tile.store %sum, %y[%zero, %zero] : tensor<64x64xf32>, !tile.block<tensor<64x64xf32>>
  tile.return
}

// -----

// A loop in a branch with an alternative.
// CHECK-LABEL: tile.kernel @branch
tile.kernel @branch(%x: !tile.block<tensor<4x64xf32>>, %y: !tile.block<tensor<4x4xf32>>) writes [1] grid [2] {
  %p = tile.program_id 0
  %zero = tile.index 0() : () -> index
  %end = tile.index 64() : () -> index
  %step = tile.index 4() : () -> index
  %f = arith.constant 0.0 : f32
  %init = tile.broadcast %f along [] : f32 -> tensor<4x4xf32>
  %mine = arith.cmpi eq, %p, %zero : index
  %sum = scf.if %mine -> (tensor<4x4xf32>) {
    %inner = scf.for %j = %zero to %end step %step iter_args(%acc = %init) -> (tensor<4x4xf32>) {
      %a = tile.load %x[%zero, %j] : !tile.block<tensor<4x64xf32>> -> tensor<4x4xf32>
      %b = arith.addf %acc, %a : tensor<4x4xf32>
      scf.yield %b : tensor<4x4xf32>
    }
    scf.yield %inner : tensor<4x4xf32>
  } else {
    scf.yield %init : tensor<4x4xf32>
  }
  scf.if %mine {
    tile.store %sum, %y[%zero, %zero] : tensor<4x4xf32>, !tile.block<tensor<4x4xf32>>
  }
  tile.return
}
