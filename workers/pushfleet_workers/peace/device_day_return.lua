-- A push that was counted was not taken by the vendor after all; or the vendor says that the device is full for today.
-- KEYS  days of the user's devices
-- ARGV  place, day on which it was counted, sort, message, most of a day (0: it may have another one)
local DAY, ORDINARY, IMPORTANT, NEXT, BEFORE = 1, 2, 3, 4, 6
local ID, MARK = 1, 5
local packed = redis.call('HGET', KEYS[1], ARGV[1])
local unpacked, state = pcall(cmsgpack.unpack, packed or '')
if not unpacked or type(state) ~= 'table' or #state ~= BEFORE or state[DAY] ~= tonumber(ARGV[2]) then return 0 end
local which, most = ARGV[3] == 'i' and IMPORTANT or ORDINARY, tonumber(ARGV[5])
state[which] = math.max(0, state[which] - 1)
if ARGV[3] == 'g' then
  state[NEXT] = 0
  if state[BEFORE][ID] == ARGV[4] then state[BEFORE][MARK] = 0 end
end
if most > 0 then state[ORDINARY] = math.max(state[ORDINARY], most - state[IMPORTANT]) end
redis.call('HSET', KEYS[1], ARGV[1], cmsgpack.pack(state))
return 1
