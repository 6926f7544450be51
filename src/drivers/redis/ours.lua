-- 1 if only this library's subscribers hear a topic: each subscriber of the first channel has the second one too, there
-- are no patterns, and no replica, present or one that may come back to the backlog, has subscribers of its own.
local counts = redis.call('PUBSUB', 'NUMSUB', unpack(ARGV))
if counts[2] ~= counts[4] or redis.call('PUBSUB', 'NUMPAT') > 0 then
    return 0
end
local about = redis.call('INFO', 'replication')
for _, line in ipairs({'role:master', 'connected_slaves:0', 'repl_backlog_active:0'}) do
    if not string.find(about, line, 1, true) then
        return 0
    end
end
return 1
