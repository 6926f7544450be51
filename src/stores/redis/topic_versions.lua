-- The table's version, incarnation and tip, the server's run, the version of the table's delete, and for each topic the
-- version of its last write, if it has one.
local rows, about = unpack(KEYS)
local call = redis.call
local stands = call('HMGET', about, 'version', 'incarnation', 'tip', 'deleted')
if call('HEXISTS', about, 'exists') ~= call('HEXISTS', rows, '\255') then
    return {2}
end
table.insert(stands, 4, run_id())
local few = 1000
for from = 1, #ARGV, few do
    local states = call('HMGET', rows, unpack(ARGV, from, math.min(from + few - 1, #ARGV)))
    for at = 1, #states do
        stands[#stands + 1] = states[at] and string.sub(states[at], 1, 8)
    end
end
return stands
